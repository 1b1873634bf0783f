module vault-transit

go 1.25.3

require (
	github.com/hashicorp/go-hclog v1.6.3
	github.com/hashicorp/vault v1.21.1
	// The release of its own library that fits: the one its go.mod names lies in its repository alone.
	github.com/hashicorp/vault/sdk v0.20.0
)

// Two of Vault's own replacements; the others point into its repository.
replace github.com/99designs/keyring => github.com/Jeffail/keyring v1.2.3

replace github.com/ma314smith/signedxml v1.1.1 => github.com/moov-io/signedxml v1.1.1
