package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/store"
)

// placeFlags say where a deployment keeps its data. serve and every operator
// command take them, with the same defaults, so that a command finds what the
// server beside it uses.
type placeFlags struct {
	Dev         bool        `help:"Trying things out: data in ./.kavach-dev, operator dev with password dev. NOT SAFE."`
	Data        string      `placeholder:"DIR" help:"Folder for what kavach keeps (./kavach-data, with --dev ./.kavach-dev)."`
	DB          databaseURL `name:"db" placeholder:"URL" help:"Database (sqlite:DATA/kavach.db)."`
	DBFile      string      `name:"db-file" placeholder:"FILE" help:"File that holds the URL of the database, for one with a password in it."`
	D1TokenFile string      `name:"d1-token-file" placeholder:"FILE" help:"File that holds the token for a database on D1, if KAVACH_D1_TOKEN does not."`
	SecretFile  string      `placeholder:"FILE" help:"The secret that opens the keys in the database (DATA/secret)."`
	Issuer      string      `placeholder:"URL" help:"The address clients know this server by: https, or http on this machine (http://LISTEN)."`

	d1Token store.Token // read by resolve
}

// Default places.
const (
	defaultData    = "kavach-data"
	defaultDevData = ".kavach-dev"
	defaultListen  = "127.0.0.1:8420"
)

// resolve fills in the defaults.
func (p *placeFlags) resolve() error {
	if p.Data == "" {
		p.Data = defaultData
		if p.Dev {
			p.Data = defaultDevData
		}
	}
	var err error
	if p.DB, err = resolveDatabase(p.DB, p.DBFile, p.Data); err != nil {
		return err
	}
	p.DBFile = "" // read
	if p.d1Token, err = p.DB.token(p.D1TokenFile); err != nil {
		return err
	}
	if p.SecretFile == "" {
		p.SecretFile = filepath.Join(p.Data, "secret")
	}
	if p.Issuer != "" {
		return checkIssuer(p.Issuer)
	}
	return nil
}

// storeConfig is how the database is opened.
func (p *placeFlags) storeConfig() store.Config {
	return store.Config{DSN: p.DB.Reveal(), Token: p.d1Token, Issuer: p.issuerOrDefault()}
}

// makeData creates the data folder, for its owner alone, if anything is kept
// there: the database, or the secret.
func (p *placeFlags) makeData() error {
	if _, ok := p.DB.file(); !ok && filepath.Dir(p.SecretFile) != filepath.Clean(p.Data) {
		return nil
	}
	if err := os.MkdirAll(p.Data, 0o700); err != nil {
		return fmt.Errorf("making the data folder %s: %w", p.Data, pathCause(err))
	}
	return nil
}

// openSecret reads the deployment secret, or writes one if there is none and
// make says so. It returns whether it was made.
func (p *placeFlags) openSecret(make bool) (secret authz.DeploymentSecret, made bool, err error) {
	content, err := os.ReadFile(p.SecretFile)
	switch {
	case err == nil:
		if secret, err = authz.ParseDeploymentSecret(content); err != nil {
			return secret, false, withHint(fmt.Errorf("reading the secret file %s: %w", p.SecretFile, plain(err)),
				"`head -c 32 /dev/urandom` makes one for a new database; an old database needs its own")
		}
		return secret, false, nil
	case !errors.Is(err, fs.ErrNotExist):
		return secret, false, fmt.Errorf("reading the secret file %s: %w", p.SecretFile, pathCause(err))
	case !make:
		return secret, false, p.wrongSecret("there is no secret file " + p.SecretFile)
	}
	secret = authz.NewDeploymentSecret()
	err = writeNew(p.SecretFile, []byte(secret.Reveal()+"\n"), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return p.openSecret(false) // another process was faster
	}
	return secret, err == nil, err
}

// wrongSecret is the refusal to use a database without its secret.
func (p *placeFlags) wrongSecret(what string) error {
	return withHint(fmt.Errorf("%s, and the keys in %s are sealed with one", what, p.DB),
		"bring back the secret file that was written at the first start and name it with --secret-file")
}

// deployment is an open database with everything an operator command needs.
type deployment struct {
	placeFlags
	store    *store.Store
	log      *audit.Log
	keys     *authz.Keyring
	keyring  authz.KeyringConfig // how long keys live, if the defaults are not meant
	registry *authz.Registry
	agents   *authz.Agents
}

// issuerOrDefault is the issuer an operator command works for: that of the
// server beside it, which its default or KAVACH_ISSUER names.
func (p *placeFlags) issuerOrDefault() string {
	if p.Issuer != "" {
		return p.Issuer
	}
	return "http://" + defaultListen
}

// open opens the database and its log, creating both if need be. Keys are
// opened by openKeys, which not every command needs.
func (p *placeFlags) open(ctx context.Context, log *slog.Logger, clock func() time.Time) (*deployment, error) {
	if err := p.resolve(); err != nil {
		return nil, err
	}
	if err := p.makeData(); err != nil {
		return nil, err
	}
	s, err := store.Open(ctx, p.storeConfig())
	if err != nil {
		return nil, openError(p.DB, err)
	}
	return &deployment{
		placeFlags: *p,
		store:      s,
		log:        audit.NewLog(audit.Config{Store: s, Now: clock, Logger: log}),
	}, nil
}

// openError says what to do about a database that does not open.
func openError(db databaseURL, err error) error {
	opened := fmt.Errorf("opening the database %s: %w", db, plain(err))
	switch {
	case errors.Is(err, fs.ErrPermission):
		return withHint(opened, "run it as the user whose database it is")
	case errors.Is(err, store.ErrNewerSchema):
		return withHint(opened, "use the kavach that wrote it, or a newer one")
	case errors.Is(err, store.ErrOtherSchema):
		return withHint(opened, "use the build that made it; what --dev keeps can be deleted")
	case errors.Is(err, store.ErrMoved):
		return withHint(opened, "name the database that it was moved to with --db")
	case errors.Is(err, store.ErrIncomplete):
		return withHint(opened, "run the `kavach store copy` or `kavach restore` that fills it once more")
	case errors.Is(err, store.ErrBackup):
		return withHint(opened, "`kavach restore FILE` restores from it")
	case errors.Is(err, store.ErrConfig):
		return usage(opened, databaseHint)
	case errors.Is(err, store.ErrNoDatabase) && strings.Contains(err.Error(), "readonly database"):
		return withHint(opened, "SQLite writes beside what it reads: copy it, with its -wal file, to a folder that you may write to")
	case errors.Is(err, store.ErrNoDatabase) && strings.Contains(err.Error(), "not a kavach database"):
		return withHint(opened, "name another with --data or --db")
	case errors.Is(err, store.ErrNoDatabase):
		file, local := db.file()
		if !local {
			return withHint(opened, "`kavach serve` or `kavach migrate` makes one in a database that is empty")
		}
		hint := "name it with --data or --db; `kavach serve` or `kavach migrate` creates one"
		if _, err := os.Stat(filepath.Join(defaultDevData, "kavach.db")); err == nil && !strings.Contains(db.String(), defaultDevData) {
			hint += "\n--dev names the one of `kavach serve --dev` in this folder"
		} else if filepath.Clean(file) == filepath.Join(defaultDevData, "kavach.db") {
			hint = "--dev means " + defaultDevData + " of this folder: run it where `kavach serve --dev` runs"
		}
		return withHint(opened, hint)
	}
	return opened
}

// closeTimeout bounds how long a command waits for its last records.
const closeTimeout = 5 * time.Second

// close writes what is queued and closes the database.
func (d *deployment) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return errors.Join(d.log.Close(ctx), d.store.Close())
}
