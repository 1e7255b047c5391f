package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

type revokeCmds struct {
	Token  revokeTokenCmd  `cmd:"" group:"agent" help:"End a token or chain, and all below it, by its key or one above it."`
	Own    revokeOwnCmd    `cmd:"" group:"agent" help:"End a key that is known to others, and all that is bound to it."`
	Grant  revokeGrantCmd  `cmd:"" group:"operator" help:"End a grant, or what it has given until now."`
	Key    revokeKeyCmd    `cmd:"" group:"operator" help:"End all that is bound to a key, or came from it, until it is lifted."`
	Client revokeClientCmd `cmd:"" group:"operator" help:"End all that names an OAuth client, until it is lifted."`
	All    revokeAllCmd    `cmd:"" group:"operator" help:"End every token that was issued until now; sign-ins and grants go on."`
	Lift   revokeLiftCmd   `cmd:"" group:"operator" help:"Take back the revocation of a key or a client."`
	List   revokeListCmd   `cmd:"" group:"operator" help:"List what is revoked now, newest first."`
}

// revokeTokenCmd is what a holder does, at the server.
type revokeTokenCmd struct {
	Token      string `arg:"" placeholder:"FILE" help:"File with the token or chain; - is standard input."`
	Issuer     string `required:"" placeholder:"URL" help:"The server that issued it."`
	HolderFile string `default:"holder.key.json" placeholder:"FILE" help:"The key of its last link, or of one above (${default})."`
	reachFlags
	jsonFlag
}

func (c *revokeTokenCmd) Run(w *world) error {
	if err := onceStdin(c.Token, c.HolderFile); err != nil {
		return err
	}
	if err := checkIssuer(c.Issuer); err != nil {
		return err
	}
	token, err := w.readLine(c.Token)
	if err != nil {
		return err
	}
	if err := ofIssuer(token, c.Issuer); err != nil {
		return err
	}
	return w.revokeAt(c.Issuer, c.HolderFile, client.Revocation{Token: token}, "the token and all below it", c.reachFlags, c.JSON)
}

// ofIssuer refuses what no server of that name has issued. The server answers
// that there is nothing to do ("invalid tokens do not cause an error response",
// RFC 7009 §2.2), and whoever named the wrong file would believe it revoked.
func ofIssuer(token, issuer string) error {
	parts, err := delegation.Inspect(token)
	if err != nil {
		return withHint(fmt.Errorf("reading the token: %w", err), "a token is one compact JWT, a chain is several joined by ~")
	}
	if parts[0].UnverifiedClaims.Get("iss").Str() != issuer {
		return withHint(fmt.Errorf("the token is not of %s", issuer), "`kavach token inspect` shows whose it is; a chain begins with the token that the server issued")
	}
	return nil
}

// revokeOwnCmd is for who lost a key and still has it.
type revokeOwnCmd struct {
	HolderFile string `arg:"" placeholder:"FILE" help:"The key file."`
	Issuer     string `required:"" placeholder:"URL" help:"The server whose tokens are bound to it."`
	TokenFile  string `placeholder:"FILE" help:"A live token or chain in which something is bound to the key; - is standard input. It helps where too many keys are revoked already."`
	reachFlags
	jsonFlag
}

func (c *revokeOwnCmd) Run(w *world) error {
	if err := onceStdin(c.HolderFile, c.TokenFile); err != nil {
		return err
	}
	r := client.Revocation{}
	if c.TokenFile != "" {
		var err error
		if r.Bound, err = w.readLine(c.TokenFile); err != nil {
			return err
		}
	}
	return w.revokeAt(c.Issuer, c.HolderFile, r, "what is bound to this key, until an operator lifts that,", c.reachFlags, c.JSON)
}

// revokeAt asks the issuer, with a proof by the key.
func (w *world) revokeAt(issuer, holderFile string, r client.Revocation, what string, reach reachFlags, asJSON bool) error {
	if err := checkIssuer(issuer); err != nil {
		return err
	}
	transport, err := reach.issuerTransport(w)
	if err != nil {
		return err
	}
	key, err := w.readPrivateKey(holderFile)
	if err != nil {
		return err
	}
	r.Issuer, r.Key, r.Transport, r.Now = issuer, key, transport, w.now
	recorded, err := client.Revoke(w.ctx, r)
	if err != nil {
		return serverError("revoking", issuer, err)
	}
	if asJSON {
		return w.printJSON(map[string]any{"revoked": true, "recorded": recorded})
	}
	w.revoked(what, recorded)
	return nil
}

// revoked tells a person what happened.
func (w *world) revoked(what string, recorded bool) {
	w.note("%s is dead at the server now, elsewhere when the feed says so", what)
	if !recorded {
		w.note("the log could not be written: the record of it follows when it can")
	}
}

type revokeGrantCmd struct {
	Grant  string `arg:"" placeholder:"GID" help:"Id of the grant, as tokens (gid) and records name it."`
	Issued bool   `help:"Only what it has given until now: the grant goes on."`
	placeFlags
	jsonFlag
}

func (c *revokeGrantCmd) Run(w *world) error {
	what := "what came from grant " + oneLine(c.Grant)
	return c.end(w, authz.Ending{Grant: c.Grant, Issued: c.Issued}, what, c.JSON)
}

type revokeKeyCmd struct {
	Key string `arg:"" placeholder:"JKT" help:"Its thumbprint, as cnf and records name it."`
	placeFlags
	jsonFlag
}

func (c *revokeKeyCmd) Run(w *world) error {
	return c.end(w, authz.Ending{Key: c.Key}, "what is bound to key "+oneLine(c.Key), c.JSON)
}

type revokeClientCmd struct {
	Client string `arg:"" placeholder:"ID" help:"Its client_id. An agent is suspended: kavach agent suspend."`
	placeFlags
	jsonFlag
}

func (c *revokeClientCmd) Run(w *world) error {
	return c.end(w, authz.Ending{Client: c.Client}, "what names client "+oneLine(c.Client), c.JSON)
}

type revokeAllCmd struct {
	placeFlags
	jsonFlag
}

func (c *revokeAllCmd) Run(w *world) error {
	return c.end(w, authz.Ending{Issued: true}, "every token that was issued until now", c.JSON)
}

// everything is the person behind an operator command, who may end anything.
var everything = authz.Holder{Role: "operator", Active: true}

// end revokes on the server's own database.
func (p *placeFlags) end(w *world, what authz.Ending, told string, asJSON bool) error {
	d, err := p.openRegistry(w)
	if err != nil {
		return err
	}
	defer d.close()
	recorded, err := d.registry.End(w.ctx, byOperator, everything, what)
	if errors.Is(err, authz.ErrInvalid) {
		return usage(operatorError(err), "")
	}
	if err != nil {
		return fmt.Errorf("revoking: %w", operatorError(err))
	}
	if asJSON {
		return w.printJSON(map[string]any{"revoked": true, "recorded": recorded})
	}
	w.revoked(told, recorded)
	return nil
}

type revokeLiftCmd struct {
	Kind  string `arg:"" enum:"key,client" help:"${enum}."`
	Value string `arg:"" placeholder:"ID" help:"Thumbprint or client_id."`
	placeFlags
	jsonFlag
}

func (c *revokeLiftCmd) Run(w *world) error {
	d, err := c.openRegistry(w)
	if err != nil {
		return err
	}
	defer d.close()
	err = d.registry.Lift(w.ctx, byOperator, authz.RevocationKind(c.Kind), c.Value)
	if errors.Is(err, authz.ErrNotFound) {
		return withHint(fmt.Errorf("the %s %s is not revoked", c.Kind, oneLine(c.Value)), "`kavach revoke list` shows what is")
	}
	if err != nil {
		return fmt.Errorf("lifting: %w", operatorError(err))
	}
	if c.JSON {
		return w.printJSON(map[string]any{"lifted": true})
	}
	w.note("the %s %s is as good as before", c.Kind, oneLine(c.Value))
	return nil
}

type revokeListCmd struct {
	placeFlags
	jsonFlag
}

// revocationView is a revocation as the command prints it.
type revocationView struct {
	Seq    int64  `json:"seq"`
	Kind   string `json:"kind"`
	Value  string `json:"value"`
	Grant  string `json:"gid,omitempty"`
	At     string `json:"at"`
	Until  string `json:"until,omitempty"`
	Before string `json:"before,omitempty"`
}

func (c *revokeListCmd) Run(w *world) error {
	d, err := c.openRegistry(w)
	if err != nil {
		return err
	}
	defer d.close()
	views, rows := []revocationView{}, [][]string{}
	for before := int64(0); ; {
		page, err := d.registry.Revocations(w.ctx, before, listPage)
		if err != nil {
			return fmt.Errorf("listing: %w", operatorError(err))
		}
		for _, r := range page {
			v := revocationView{Seq: r.Seq, Kind: string(r.Kind), Value: r.Value, Grant: r.Grant, At: when(r.At)}
			until := "lifted"
			if !r.Until.IsZero() {
				v.Until = when(r.Until)
				until = v.Until
			}
			if !r.Before.IsZero() {
				v.Before = when(r.Before)
			}
			views = append(views, v)
			rows = append(rows, []string{v.Kind, v.Value, v.At, until, strings.TrimSpace(v.Grant + " " + v.Before)})
		}
		if len(page) < listPage {
			break
		}
		before = page[len(page)-1].Seq
	}
	if c.JSON {
		return w.printJSON(views)
	}
	return w.table([]string{"KIND", "REVOKED", "AT", "UNTIL", "GRANT OR TIME"}, rows)
}
