// Usage: program URL
package main

import (
	"context"
	"errors"
	"log"
	"os"

	"example.test/app/auditcontext"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

type executor interface {
	Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error)
}

var takenBack = errors.New("taken back")

func main() {
	plain := context.Background()
	pool, err := pgxpool.New(plain, os.Args[1]+"?pool_max_conns=1")
	check(err)
	defer pool.Close()
	add := func(db executor, id int) {
		_, err := db.Exec(plain, "INSERT INTO t VALUES ($1)", id)
		check(err)
	}
	ann := auditcontext.With(auditcontext.With(plain, auditcontext.Fields{"actor_id": "ann"}), auditcontext.Fields{"reason": "first"})
	check(auditcontext.InTx(ann, pool, func(tx pgx.Tx) error { add(tx, 1); add(tx, 2); return nil }))
	add(pool, 3)
	bob := auditcontext.With(plain, auditcontext.Fields{"actor_id": "bob"})
	back(auditcontext.InTx(bob, pool, func(tx pgx.Tx) error { add(tx, 4); return takenBack }))
	check(auditcontext.InTx(plain, pool, func(tx pgx.Tx) error { add(tx, 5); return nil }))
	cleo := auditcontext.With(plain, auditcontext.Fields{"actor_id": "cleo"})
	check(auditcontext.InTx(cleo, pool, func(tx pgx.Tx) error {
		add(tx, 6)
		back(auditcontext.InTx(cleo, tx, func(inner pgx.Tx) error { add(inner, 7); return takenBack }))
		add(tx, 8)
		return nil
	}))
	check(auditcontext.InTx(cleo, pool, func(tx pgx.Tx) error { add(tx, 9); return nil }))
}

func back(err error) {
	if !errors.Is(err, takenBack) {
		log.Fatal("not taken back: ", err)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
