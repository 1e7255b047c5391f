package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/kavach-dev/kavach/agent"
)

// agentCreateCmd makes an identity: a key and the manifest it signs.
type agentCreateCmd struct {
	Name       string        `arg:"" help:"Name of the agent: letters, digits, '.', '_', '-'."`
	Version    string        `required:"" placeholder:"V" help:"Semantic version of the agent, such as 1.0.0."`
	Purpose    string        `required:"" placeholder:"TEXT" help:"What it is for, in a sentence for people."`
	Scope      string        `required:"" placeholder:"SCOPES" help:"What it may ask for, separated by spaces."`
	Capability []string      `sep:"," placeholder:"NAME" help:"read, write or delegate; repeatable. Only with delegate may it hand on what it holds."`
	MaxDepth   int           `default:"3" help:"How many levels may be derived below its tokens (${default})."`
	TTL        time.Duration `name:"ttl" default:"8760h" help:"How long the manifest is good for (${default}, at most a year)."`
	Tool       []string      `sep:"none" placeholder:"NAME" help:"A tool it says it calls; repeatable."`
	Origin     string        `placeholder:"TEXT" help:"Where it comes from; shown, not enforced."`
	TrustLevel string        `placeholder:"TEXT" help:"Declared and shown, not enforced."`
	Out        string        `default:"." placeholder:"DIR" help:"Folder for NAME.key.json and NAME.manifest.jwt."`
	jsonFlag
}

func (c *agentCreateCmd) Run(w *world) error {
	made, err := createAgent(agent.Manifest{
		Name: c.Name, Version: c.Version, Purpose: c.Purpose,
		Scopes: words(c.Scope), Tools: c.Tool, Capabilities: c.Capability,
		MaxDepth: c.MaxDepth, Origin: c.Origin, TrustLevel: c.TrustLevel,
		IssuedAt: w.now(), Expires: w.now().Add(c.TTL),
	}, c.Out)
	if err != nil {
		return err
	}
	if c.JSON {
		return w.printJSON(made)
	}
	fmt.Fprintln(w.stdout, made.ID)
	w.note("wrote %s (keep it secret) and %s", made.KeyFile, made.ManifestFile)
	return nil
}

// createdAgent is what `agent create --json` prints.
type createdAgent struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	KeyFile      string `json:"key_file"`
	ManifestFile string `json:"manifest_file"`

	key      agent.PrivateKey
	manifest string
}

// createAgent makes a key, signs m with it and writes both into folder. When
// it fails neither file is left behind.
func createAgent(m agent.Manifest, folder string) (createdAgent, error) {
	key, err := agent.GenerateKey()
	if err != nil {
		return createdAgent{}, err
	}
	manifest, err := agent.SignManifest(m, key)
	if err != nil {
		return createdAgent{}, usage(err, "run `kavach agent create --help`")
	}
	jwk, err := key.MarshalJWK()
	if err != nil {
		return createdAgent{}, err
	}
	made := createdAgent{
		ID: key.Public().Thumbprint(), Name: m.Name, key: key, manifest: manifest,
		KeyFile:      filepath.Join(folder, m.Name+".key.json"),
		ManifestFile: filepath.Join(folder, m.Name+".manifest.jwt"),
	}
	if err := checkAbsent(made.KeyFile, made.ManifestFile); err != nil {
		return createdAgent{}, err
	}
	if err := writeNew(made.ManifestFile, []byte(manifest+"\n"), 0o644); err != nil {
		return createdAgent{}, err
	}
	if err := writeNew(made.KeyFile, append(jwk, '\n'), 0o600); err != nil {
		removeQuietly(made.ManifestFile)
		return createdAgent{}, err
	}
	return made, nil
}
