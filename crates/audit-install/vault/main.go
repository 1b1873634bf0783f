// Vault's core with its transit engine, in memory and unsealed, for tests: `vault-transit ADDRESS`, the root token in VAULT_ROOT_TOKEN.
//
// The whole server cannot be installed by name (its go.mod holds replace lines), and its command line alone is most of what
// would have to be compiled. What serves requests here is Vault's own code.
package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

const engine = "transit"

// registry knows one plugin, which is compiled in.
type registry struct{}

func (registry) Contains(name string, kind consts.PluginType) bool {
	return name == engine && (kind == consts.PluginTypeSecrets || kind == consts.PluginTypeUnknown)
}

func (r registry) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	return func() (any, error) { return transit.Factory, nil }, r.Contains(name, kind)
}

func (r registry) Keys(kind consts.PluginType) []string {
	if kind != consts.PluginTypeSecrets {
		return nil
	}
	return []string{engine}
}

func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, kind)
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func main() {
	if err := serve(os.Args[1], os.Getenv("VAULT_ROOT_TOKEN")); err != nil {
		log.Fatal(err)
	}
}

func serve(address, token string) error {
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Warn})
	storage, err := inmem.NewTransactionalInmem(nil, logger)
	if err != nil {
		return err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:        storage,
		Logger:          logger,
		DisableMlock:    true,
		BuiltinRegistry: registry{},
		LogicalBackends: map[string]logical.Factory{engine: transit.Factory},
	})
	if err != nil {
		return err
	}
	ctx := namespace.RootContext(context.Background())
	seal := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	made, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: seal})
	if err != nil {
		return err
	}
	if _, err := core.Unseal(made.SecretShares[0]); err != nil {
		return err
	}
	_, err = core.HandleRequest(ctx, &logical.Request{
		ID: "root", Operation: logical.UpdateOperation, ClientToken: made.RootToken, Path: "auth/token/create",
		Data: map[string]any{"id": token, "policies": []string{"root"}, "no_parent": true, "no_default_policy": true},
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	plain := &configutil.Listener{Type: "tcp", Address: address}
	return http.Serve(listener, vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: plain}))
}
