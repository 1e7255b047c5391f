package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
)

// nextManifest are the flags of what replaces a manifest. What is not given
// stays as it is.
type nextManifest struct {
	KeyFile       string        `required:"" placeholder:"FILE" help:"The key file of the agent."`
	Manifest      string        `required:"" placeholder:"FILE" help:"NAME.manifest.jwt of the agent: the next manifest is added to it."`
	Issuer        string        `placeholder:"URL" help:"The server to tell. Without it only the file changes."`
	EnrolmentFile string        `placeholder:"FILE" help:"File with the token of 'kavach agent enrol --agent', which a key change needs; - is standard input."`
	Version       string        `placeholder:"V" help:"Semantic version of the agent."`
	Purpose       string        `placeholder:"TEXT" help:"What it is for, in a sentence for people."`
	Scope         string        `placeholder:"SCOPES" help:"What it may ask for, separated by spaces; in place of what it was."`
	Capability    []string      `sep:"," placeholder:"NAME" help:"read, write or delegate; repeatable; in place of what they were, 'none' for none."`
	MaxDepth      *int          `placeholder:"N" help:"How many levels may be derived below its tokens."`
	TTL           time.Duration `name:"ttl" default:"8760h" help:"How long the manifest is good for (${default}, at most a year)."`
}

// agentUpdateCmd signs the manifest that replaces another, with the same key.
type agentUpdateCmd struct {
	nextManifest
	jsonFlag
}

func (c *agentUpdateCmd) Run(w *world) error {
	s, err := c.begin(w)
	if err != nil {
		return err
	}
	s.next, s.nextFile = s.key, c.KeyFile
	return s.finish(w, c.nextManifest, c.JSON)
}

// agentRotateCmd makes a new key for an agent and has the one before sign it.
type agentRotateCmd struct {
	nextManifest
	Out string `placeholder:"FILE" help:"File for the new key (the key file's name with the number of the manifest)."`
	jsonFlag
}

func (c *agentRotateCmd) Run(w *world) error {
	s, err := c.begin(w)
	if err != nil {
		return err
	}
	if c.Issuer != "" && c.EnrolmentFile == "" {
		return usagef("an operator makes it: kavach agent enrol --agent "+oneLine(s.last.Name), "a key change at a server needs its owner: --enrolment-file")
	}
	s.nextFile = c.Out
	if s.nextFile == "" {
		s.nextFile = numbered.ReplaceAllString(c.KeyFile, "") + "." + strconv.FormatInt(s.last.Seq+1, 10) + ".json"
	}
	if s.nextFile == "-" || c.KeyFile == "-" && c.Out == "" {
		return usagef("name a file", "--out writes a private key, and not to standard output")
	}
	if s.waiting != "" {
		// The key was made already, by the run that did not end.
		if s.next, _, err = w.readIdentity(s.nextFile); err != nil {
			return err
		}
		return s.finish(w, c.nextManifest, c.JSON)
	}
	if s.next, err = agent.GenerateKey(); err != nil {
		return err
	}
	private, err := s.next.MarshalIdentity(s.last.ID)
	if err != nil {
		return err
	}
	if err := writeNew(s.nextFile, append(private, '\n'), 0o600); err != nil {
		return err
	}
	w.note("wrote %s (keep it secret)", s.nextFile)
	return s.finish(w, c.nextManifest, c.JSON)
}

// numbered is the end of a key file's name.
var numbered = regexp.MustCompile(`(\.[0-9]+)?\.json$`)

// succession is one manifest about to replace another.
type succession struct {
	history string
	last    agent.Manifest
	key     agent.PrivateKey // of last
	next    agent.PrivateKey
	// nextFile is where next is.
	nextFile string
	// waiting is the history that an earlier run made and could not finish: the
	// server may have taken it.
	waiting string
}

// waitingSuffix names the file of a manifest that its server may not know yet.
// It becomes the manifest when the server has taken it.
const waitingSuffix = ".next"

func (f nextManifest) begin(w *world) (*succession, error) {
	if err := onceStdin(f.KeyFile, f.Manifest, f.EnrolmentFile); err != nil {
		return nil, err
	}
	if f.Manifest == "-" {
		return nil, usagef("name the file, which will hold the new one", "--manifest is written, and not to standard output")
	}
	if f.Issuer != "" {
		if err := checkIssuer(f.Issuer); err != nil {
			return nil, err
		}
	}
	key, id, err := w.readIdentity(f.KeyFile)
	if err != nil {
		return nil, err
	}
	history, err := w.readLine(f.Manifest)
	if err != nil {
		return nil, err
	}
	list, err := agent.VerifyHistory(history)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest %s: %w", f.Manifest, err)
	}
	s := &succession{history: history, last: list[len(list)-1], key: key}
	if s.last.ID != id || s.last.Key != key.Public() {
		return nil, fmt.Errorf("the manifest %s belongs to another key than %s", f.Manifest, f.KeyFile)
	}
	if data, err := w.read(f.Manifest + waitingSuffix); err == nil {
		s.waiting = strings.TrimSpace(string(data))
		if list, err := agent.VerifyHistory(s.waiting); err != nil || !strings.HasPrefix(s.waiting, history+"~") || list[0].ID != id {
			return nil, fmt.Errorf("%s%s does not follow %s", f.Manifest, waitingSuffix, f.Manifest)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return s, nil
}

// change is the next manifest before it is signed.
func (f nextManifest) change(w *world, m agent.Manifest) agent.Manifest {
	for _, text := range []struct {
		given string
		into  *string
	}{{f.Version, &m.Version}, {f.Purpose, &m.Purpose}} {
		if text.given != "" {
			*text.into = text.given
		}
	}
	if f.Scope != "" {
		m.Scopes = words(f.Scope)
	}
	if len(f.Capability) == 1 && f.Capability[0] == "none" {
		m.Capabilities = nil
	} else if len(f.Capability) > 0 {
		m.Capabilities = f.Capability
	}
	if f.MaxDepth != nil {
		m.MaxDepth = *f.MaxDepth
	}
	m.IssuedAt = w.now()
	m.Expires = w.now().Add(f.TTL)
	return m
}

// finish signs, tells the server, and then replaces the file. Every step can be
// done again: a server takes the manifest it has already.
func (s *succession) finish(w *world, f nextManifest, asJSON bool) error {
	next := s.waiting
	if next == "" {
		token, err := agent.SignNextManifest(f.change(w, s.last), agent.NextManifest{Last: s.history, Key: s.next, Previous: s.key})
		if err != nil {
			return err
		}
		next = agent.JoinHistory(s.history, token)
		if err := writeNew(f.Manifest+waitingSuffix, []byte(next+"\n"), 0o644); err != nil {
			return err
		}
	} else {
		w.note("going on with %s, which an earlier run made", f.Manifest+waitingSuffix)
	}
	m, err := agent.VerifyManifest(next, w.now())
	if err != nil {
		return fmt.Errorf("reading %s: %w", f.Manifest+waitingSuffix, err)
	}
	if m.Key != s.next.Public() {
		return withHint(fmt.Errorf("%s is for another key than %s", f.Manifest+waitingSuffix, s.nextFile),
			"it waits for its server: finish what made it (rotate, or update), or delete it if the server never saw it")
	}
	countersigned := ""
	if f.Issuer != "" {
		if countersigned, err = s.tell(w, f, m, newest(next)); err != nil {
			return fmt.Errorf("updating %s: %w", m.Name, err)
		}
	}
	if err := os.Rename(f.Manifest+waitingSuffix, f.Manifest); err != nil {
		return fmt.Errorf("writing %s: %w", f.Manifest, pathCause(err))
	}
	if asJSON {
		content := map[string]any{
			"id": m.ID, "seq": m.Seq, "version": m.Version, "key_file": s.nextFile, "manifest_file": f.Manifest, "jkt": m.Key.Thumbprint(),
		}
		if countersigned != "" {
			content["countersigned"] = countersigned
		}
		return w.printJSON(content)
	}
	fmt.Fprintln(w.stdout, m.ID)
	w.note("%s holds manifest %d, of version %s; its key is %s", f.Manifest, m.Seq, m.Version, s.nextFile)
	if m.Key != s.last.Key {
		w.note("the key before is of no use any more, where the change is known: delete it when nothing uses it")
	}
	return nil
}

// newest is the end of a history: a server takes so many at once, and may lack
// more than the last.
func newest(history string) string {
	const most = 16
	list := strings.Split(history, "~")
	return strings.Join(list[max(0, len(list)-most):], "~")
}

// tell brings the manifests to the server and returns it countersigned.
func (s *succession) tell(w *world, f nextManifest, m agent.Manifest, token string) (string, error) {
	assertion, err := agent.SignAssertion(s.next, m.ID, f.Issuer, w.now(), assertionLife)
	if err != nil {
		return "", err
	}
	body := map[string]string{"manifest": token, "assertion": assertion}
	if f.EnrolmentFile != "" {
		if body["enrolment_token"], err = w.readLine(f.EnrolmentFile); err != nil {
			return "", err
		}
	}
	answer, err := postJSON(w.ctx, f.Issuer+"/api/v1/agents/"+m.ID+"/manifests", body, http.StatusOK)
	if err != nil {
		return "", err
	}
	var taken struct {
		Manifest string `json:"manifest"`
	}
	if err := json.Unmarshal(answer, &taken); err != nil {
		return "", errors.New("the server's answer is not JSON")
	}
	return taken.Manifest, nil
}
