package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/authz"
)

type agentCmds struct {
	Create   agentCreateCmd   `cmd:"" group:"offline" help:"Make an agent's key and signed manifest; prints its id."`
	Card     agentCardCmd     `cmd:"" group:"offline" help:"Sign a key card: tell a delegator which key is this agent's."`
	Manifest agentManifestCmd `cmd:"" group:"offline" help:"Verify a manifest and show it: the first, a history, or one with a countersignature."`
	Enrol    agentEnrolCmd    `cmd:"" group:"operator" help:"Print a token that lets one agent register, or change its key, once."`
	List     agentListCmd     `cmd:"" group:"operator" help:"List agents."`
	Show     agentShowCmd     `cmd:"" group:"operator" help:"Show an agent."`
	Grant    agentGrantCmd    `cmd:"" group:"operator" help:"Set what an agent may get on its own authentication."`
	Suspend  agentSuspendCmd  `cmd:"" group:"operator" help:"Stop an agent: it gets no tokens, and those it has are dead."`
	Resume   agentResumeCmd   `cmd:"" group:"operator" help:"Let a suspended agent act again."`
	Update   agentUpdateCmd   `cmd:"" group:"agent" help:"Sign the next manifest of an agent, and tell its server."`
	Rotate   agentRotateCmd   `cmd:"" group:"agent" help:"Give an agent a new key, and tell its server."`
	Register agentRegisterCmd `cmd:"" group:"agent" help:"Register an agent at a server, with its manifest and an enrolment token."`
}

// agentView is an agent as the commands print it.
type agentView struct {
	ID              string   `json:"id"`
	Name            string   `json:"name"`
	Owner           string   `json:"owner"`
	OwnerName       string   `json:"owner_name,omitempty"`
	Status          string   `json:"status"`
	Version         string   `json:"version"`
	Purpose         string   `json:"purpose"`
	Scopes          []string `json:"scopes"`
	Capabilities    []string `json:"capabilities"`
	MaxDepth        int      `json:"max_depth"`
	ManifestSeq     int64    `json:"manifest_seq"`
	ManifestExpires string   `json:"manifest_expires"`
	Created         string   `json:"created"`

	Grant *grantView `json:"grant,omitempty"`
}

type grantView struct {
	ID       string   `json:"id"`
	Scopes   []string `json:"scopes"`
	MaxDepth int      `json:"max_depth"`
	Hours    string   `json:"hours,omitempty"`
}

func viewGrant(g authz.Grant) grantView {
	return grantView{ID: g.ID, Scopes: g.Scopes, MaxDepth: g.MaxDepth, Hours: g.Hours}
}

func (d *deployment) viewAgent(ctx context.Context, a authz.Agent, names map[string]string) (agentView, error) {
	v := agentView{
		ID: a.ID, Name: a.Name, Owner: a.Owner, OwnerName: names[a.Owner], Status: string(a.Status),
		Version: a.Version, Purpose: a.Purpose, Scopes: a.Scopes, Capabilities: append([]string{}, a.Capabilities...), MaxDepth: a.MaxDepth,
		ManifestSeq: a.ManifestSeq, ManifestExpires: when(a.ManifestExpires), Created: when(a.Created),
	}
	g, err := d.agents.StandingGrant(ctx, a.ID)
	if errors.Is(err, authz.ErrNotFound) {
		return v, nil
	}
	if err != nil {
		return v, fmt.Errorf("reading the grant of %s: %w", a.Name, err)
	}
	grant := viewGrant(g)
	v.Grant = &grant
	return v, nil
}

// userNames maps ids of people to their names.
func (d *deployment) userNames(w *world) (map[string]string, error) {
	p, err := d.people(w)
	if err != nil {
		return nil, err
	}
	users, err := p.ListUsers(w.ctx)
	if err != nil {
		return nil, fmt.Errorf("listing users: %w", err)
	}
	names := make(map[string]string, len(users))
	for _, u := range users {
		names[u.ID] = u.Name
	}
	return names, nil
}

// allAgents lists the agents of an owner, or of everybody for "".
func (d *deployment) allAgents(ctx context.Context, owner string) ([]authz.Agent, error) {
	var all []authz.Agent
	for after := ""; ; {
		page, err := d.agents.Agents(ctx, owner, after, listPage)
		if err != nil {
			return nil, fmt.Errorf("listing agents: %w", err)
		}
		all = append(all, page...)
		if len(page) < listPage {
			return all, nil
		}
		after = page[len(page)-1].ID
	}
}

// ownerFlag narrows an agent's name to one owner's.
type ownerFlag struct {
	Owner string `placeholder:"USER" help:"Whose agents (everybody's)."`
}

// ownerID is the id of --owner, "" for everybody.
func (f ownerFlag) ownerID(w *world, d *deployment) (string, error) {
	if f.Owner == "" {
		return "", nil
	}
	u, err := d.user(w, f.Owner)
	return u.ID, err
}

// find finds one agent by id or name. Names are unique per owner only.
func (f ownerFlag) find(w *world, d *deployment, idOrName string) (authz.Agent, error) {
	owner, err := f.ownerID(w, d)
	if err != nil {
		return authz.Agent{}, err
	}
	var found []authz.Agent
	if agent.IsID(idOrName) || owner != "" {
		one, err := d.agents.FindAgent(w.ctx, owner, idOrName)
		if err != nil && !errors.Is(err, authz.ErrNotFound) {
			return one, fmt.Errorf("reading agent %s: %w", oneLine(idOrName), err)
		}
		if err == nil {
			found = append(found, one)
		}
	} else {
		all, err := d.allAgents(w.ctx, "")
		if err != nil {
			return authz.Agent{}, err
		}
		for _, one := range all {
			if one.Name == idOrName {
				found = append(found, one)
			}
		}
	}
	switch len(found) {
	case 0:
		return authz.Agent{}, withHint(fmt.Errorf("no agent %s", oneLine(idOrName)), "`kavach agent list` shows them")
	case 1:
		return found[0], nil
	}
	return authz.Agent{}, withHint(fmt.Errorf("%d agents are named %s", len(found), idOrName), "say whose with --owner, or give the id")
}

// agentArg is what a command about one agent takes.
type agentArg struct {
	Agent string `arg:"" help:"Id or name."`
	ownerFlag
	placeFlags
}

// open opens the registry, which the caller closes, and finds the agent there.
func (a *agentArg) open(w *world) (*deployment, authz.Agent, error) {
	d, err := a.openRegistry(w)
	if err != nil {
		return nil, authz.Agent{}, err
	}
	found, err := a.find(w, d, a.Agent)
	if err != nil {
		d.close()
		return nil, authz.Agent{}, err
	}
	return d, found, nil
}

type agentEnrolCmd struct {
	Owner string        `placeholder:"USER" help:"The person who will answer for the agent; without --agent it must be said."`
	Agent string        `placeholder:"AGENT" help:"Id or name of an agent that is there: the token allows a change of its key, and nothing else."`
	TTL   time.Duration `name:"ttl" default:"1h" help:"How long the token works (${default}, at most 720h)."`
	placeFlags
	jsonFlag
}

func (c *agentEnrolCmd) Run(w *world) error {
	if c.Owner == "" && c.Agent == "" {
		return usagef("", "give --owner for a new agent, or --agent for a key change")
	}
	d, err := c.openRegistry(w)
	if err != nil {
		return err
	}
	defer d.close()
	token, enrolment, err := c.enrol(w, d)
	if err != nil {
		return err
	}
	if c.JSON {
		return w.printJSON(map[string]string{
			"enrolment_token": token.Reveal(), "owner": enrolment.Owner, "expires": when(enrolment.Expires),
		})
	}
	fmt.Fprintln(w.stdout, token.Reveal())
	if enrolment.Renews != "" {
		w.note("hint: it works once, until %s: kavach agent rotate --issuer URL --key-file F --manifest F --enrolment-file -", when(enrolment.Expires))
		return nil
	}
	w.note("hint: it works once, until %s: kavach agent register --issuer URL --key-file F --manifest F --enrolment-file -", when(enrolment.Expires))
	return nil
}

// enrol makes the token: for a new agent of the owner, or for one that is there.
func (c *agentEnrolCmd) enrol(w *world, d *deployment) (authz.Secret, authz.Enrolment, error) {
	if c.Agent != "" {
		found, err := ownerFlag{c.Owner}.find(w, d, c.Agent)
		if err != nil {
			return authz.Secret{}, authz.Enrolment{}, err
		}
		return enrolled(d.agents.EnrolKey(w.ctx, byOperator, found.ID, c.TTL))
	}
	owner, err := d.user(w, c.Owner)
	if err != nil {
		return authz.Secret{}, authz.Enrolment{}, err
	}
	return enrolled(d.agents.Enrol(w.ctx, byOperator, owner.ID, c.TTL))
}

func enrolled(token authz.Secret, e authz.Enrolment, err error) (authz.Secret, authz.Enrolment, error) {
	if err != nil {
		err = fmt.Errorf("making an enrolment token: %w", operatorError(err))
	}
	return token, e, err
}

type agentListCmd struct {
	ownerFlag
	placeFlags
	jsonFlag
}

func (c *agentListCmd) Run(w *world) error {
	d, err := c.openRegistry(w)
	if err != nil {
		return err
	}
	defer d.close()
	owner, err := c.ownerID(w, d)
	if err != nil {
		return err
	}
	all, err := d.allAgents(w.ctx, owner)
	if err != nil {
		return err
	}
	names, err := d.userNames(w)
	if err != nil {
		return err
	}
	views, rows := []agentView{}, [][]string{}
	for _, a := range all {
		v, err := d.viewAgent(w.ctx, a, names)
		if err != nil {
			return err
		}
		views = append(views, v)
		granted := ""
		if v.Grant != nil {
			granted = strings.Join(v.Grant.Scopes, " ")
		}
		rows = append(rows, []string{v.ID, v.Name, v.OwnerName, v.Status, v.Version, granted})
	}
	if c.JSON {
		return w.printJSON(views)
	}
	return w.table([]string{"AGENT", "NAME", "OWNER", "STATUS", "VERSION", "GRANTED"}, rows)
}

type agentShowCmd struct {
	agentArg
	jsonFlag
}

func (c *agentShowCmd) Run(w *world) error {
	d, found, err := c.open(w)
	if err != nil {
		return err
	}
	defer d.close()
	names, err := d.userNames(w)
	if err != nil {
		return err
	}
	v, err := d.viewAgent(w.ctx, found, names)
	if err != nil {
		return err
	}
	if c.JSON {
		return w.printJSON(v)
	}
	granted, depth, hours := "nothing", "", ""
	if v.Grant != nil {
		granted, depth, hours = strings.Join(v.Grant.Scopes, " "), strconv.Itoa(v.Grant.MaxDepth), v.Grant.Hours
		if hours == "" {
			hours = "always"
		}
	}
	return w.fields("id", v.ID, "name", v.Name, "owner", v.OwnerName+" ("+v.Owner+")", "status", v.Status, "version", v.Version,
		"purpose", v.Purpose, "may ask for", strings.Join(v.Scopes, " "), "capabilities", strings.Join(v.Capabilities, " "),
		"max depth", strconv.Itoa(v.MaxDepth), "granted", granted, "granted depth", depth, "granted hours", hours,
		"manifest", strconv.FormatInt(v.ManifestSeq, 10)+", until "+v.ManifestExpires, "registered", v.Created)
}

// agentGrantCmd replaces the standing grant of an agent.
type agentGrantCmd struct {
	agentArg
	Scope    string `placeholder:"SCOPES" xor:"what" help:"What it may get, separated by spaces; in place of what it had."`
	MaxDepth *int   `placeholder:"N" help:"How many levels its tokens may be handed on (what its manifest says, at most 3)."`
	Hours    string `placeholder:"WINDOW" help:"When it may get tokens, like 'mo-fr 08-18 UTC' (always)."`
	Remove   bool   `xor:"what" help:"Take the grant away, and with it every token that came from it."`
	jsonFlag
}

func (c *agentGrantCmd) Run(w *world) error {
	if (len(words(c.Scope)) == 0) == !c.Remove {
		return usagef("", "give --scope or --remove")
	}
	d, found, err := c.open(w)
	if err != nil {
		return err
	}
	defer d.close()
	if c.Remove {
		recorded, err := d.agents.RemoveGrant(w.ctx, byOperator, found.ID)
		if errors.Is(err, authz.ErrNotFound) {
			return fmt.Errorf("%s has no grant", found.Name)
		}
		if err != nil {
			return fmt.Errorf("removing the grant of %s: %w", found.Name, operatorError(err))
		}
		if c.JSON {
			return w.printJSON(map[string]any{"agent": found.ID, "removed": true, "recorded": recorded})
		}
		w.note("%s gets nothing any more", found.Name)
		if !recorded {
			w.note("the log could not be written: the record of it follows when it can")
		}
		return nil
	}
	g, err := d.agents.Grant(w.ctx, byOperator, found.ID, authz.AgentGrant{
		Scopes: words(c.Scope), MaxDepth: c.MaxDepth, Hours: c.Hours,
	})
	if err != nil {
		return fmt.Errorf("granting to %s: %w", found.Name, operatorError(err))
	}
	if c.JSON {
		return w.printJSON(map[string]any{"agent": found.ID, "grant": viewGrant(g)})
	}
	window := ""
	if g.Hours != "" {
		window = ", " + g.Hours
	}
	w.note("%s may get %s, handed on %d levels deep%s", found.Name, strings.Join(g.Scopes, " "), g.MaxDepth, window)
	return nil
}
