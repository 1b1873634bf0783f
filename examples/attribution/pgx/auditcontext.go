// Package auditcontext says who and why, for Go with pgx (v5): copy it into the module.
//
//	ctx = auditcontext.With(ctx, auditcontext.Fields{"actor_id": user.ID, "request_id": id})
//
//	err := auditcontext.InTx(ctx, pool, func(tx pgx.Tx) error {
//		_, err := tx.Exec(ctx, "UPDATE orders SET state = 'refunded' WHERE id = $1", 42)
//		return err
//	})
package auditcontext

import (
	"context"
	"encoding/json"
	"maps"

	"github.com/jackc/pgx/v5"
)

// Fields of a context: actor_id, actor, reason, request_id, ip, source, anything else.
type Fields map[string]any

type key struct{}

// With returns a context in whose name transactions run: that of ctx with these fields added.
func With(ctx context.Context, fields Fields) context.Context {
	all := Fields{}
	if outer, ok := ctx.Value(key{}).(Fields); ok {
		maps.Copy(all, outer)
	}
	maps.Copy(all, fields)
	return context.WithValue(ctx, key{}, all)
}

// Beginner is a pool or a connection; a transaction is one too, in which InTx makes a savepoint.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// InTx runs work in a transaction that says who and why before anything else. It is rolled back where work fails.
func InTx(ctx context.Context, db Beginner, work func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if fields, ok := ctx.Value(key{}).(Fields); ok && len(fields) > 0 {
			said, err := json.Marshal(fields)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "SELECT cdc_audit.set_context($1::jsonb)", string(said)); err != nil {
				return err
			}
		}
		return work(tx)
	})
}
