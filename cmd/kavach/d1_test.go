package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kavach-dev/kavach/store/d1test"
)

// TestD1 is a deployment on Cloudflare D1: one server through the bridge, with a
// token that may not change the schema, another through the REST API.
func TestD1(t *testing.T) {
	db := d1test.New(t)
	params := scripts()
	params.Files = []string{filepath.Join("testdata", "d1.txtar")}
	params.Setup = func(env *testscript.Env) error {
		if err := setupScript(env); err != nil {
			return err
		}
		env.Setenv("BRIDGE", db.Bridge)
		env.Setenv("REST", db.REST)
		env.Setenv("ROWS_TOKEN", d1test.RowsToken)
		env.Setenv("SCHEMA_TOKEN", d1test.SchemaToken)
		env.Setenv("REST_TOKEN", d1test.RESTToken)
		return nil
	}
	testscript.Run(t, params)
}
