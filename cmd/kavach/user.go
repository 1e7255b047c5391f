package main

import (
	"errors"
	"fmt"

	"github.com/kavach-dev/kavach/people"
)

type userCmds struct {
	Add  userAddCmd  `cmd:"" help:"Add a person, with a password you give."`
	Set  userSetCmd  `cmd:"" help:"Change a person's role or password, or lock them out."`
	List userListCmd `cmd:"" help:"List people."`
}

// userView is a person as the commands print it.
type userView struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Role     string `json:"role"`
	Disabled bool   `json:"disabled,omitempty"`
	Created  string `json:"created"`
}

func viewUser(u people.User) userView {
	return userView{ID: u.ID, Name: u.Name, Role: string(u.Role), Disabled: u.Disabled, Created: when(u.Created)}
}

type userAddCmd struct {
	Name         string `arg:"" help:"Name to sign in with."`
	Role         string `enum:"member,auditor,operator" default:"member" help:"${enum} (${default})."`
	PasswordFile string `placeholder:"FILE" help:"File with the password; - is standard input (asked for on a terminal)."`
	placeFlags
	jsonFlag
}

func (c *userAddCmd) Run(w *world) error {
	// Checked before a password is asked for.
	if _, err := people.CanonicalName(c.Name); err != nil {
		return usage(plain(err), "")
	}
	d, err := c.makeStore(w)
	if err != nil {
		return err
	}
	defer d.close()
	p, err := d.people(w)
	if err != nil {
		return err
	}
	password, err := w.password(c.PasswordFile, "password for "+oneLine(c.Name))
	if err != nil {
		return err
	}
	u, err := p.CreateUser(w.ctx, people.CLI, people.NewUser{
		Name: c.Name, Role: people.Role(c.Role), Password: people.Secret(password),
	})
	if errors.Is(err, people.ErrTaken) {
		return withHint(fmt.Errorf("there is a user %s already", oneLine(c.Name)), "`kavach user set` changes one")
	}
	if err != nil {
		return fmt.Errorf("adding user %s: %w", oneLine(c.Name), plain(err))
	}
	if c.JSON {
		return w.printJSON(viewUser(u))
	}
	fmt.Fprintln(w.stdout, u.ID)
	w.note("added %s, %s", u.Name, u.Role)
	return nil
}

type userSetCmd struct {
	Name         string `arg:"" help:"Name of the person."`
	Role         string `enum:"member,auditor,operator," default:"" help:"member, auditor or operator."`
	Password     bool   `help:"Set a new password, asked for on a terminal or read from standard input."`
	PasswordFile string `placeholder:"FILE" help:"Set a new password, from a file."`
	Disable      bool   `xor:"access" help:"Lock the person out."`
	Enable       bool   `xor:"access" help:"Let the person in again."`
	placeFlags
	jsonFlag
}

func (c *userSetCmd) Run(w *world) error {
	var change people.UserChange
	if c.Role != "" {
		role := people.Role(c.Role)
		change.Role = &role
	}
	if c.Disable || c.Enable {
		change.Disabled = &c.Disable
	}
	newPassword := c.Password || c.PasswordFile != ""
	if change == (people.UserChange{}) && !newPassword {
		return usagef("give --role, --password, --password-file, --disable or --enable", "nothing to change")
	}
	d, err := c.openStore(w)
	if err != nil {
		return err
	}
	defer d.close()
	if _, err := d.user(w, c.Name); err != nil {
		return err
	}
	p, err := d.people(w)
	if err != nil {
		return err
	}
	if newPassword {
		text, err := w.password(c.PasswordFile, "new password for "+oneLine(c.Name))
		if err != nil {
			return err
		}
		secret := people.Secret(text)
		change.Password = &secret
	}
	u, err := p.SetUser(w.ctx, people.CLI, c.Name, change)
	if err != nil {
		return fmt.Errorf("changing user %s: %w", oneLine(c.Name), plain(err))
	}
	if c.JSON {
		return w.printJSON(viewUser(u))
	}
	w.note("%s is now %s%s; every session of theirs has ended", u.Name, u.Role, map[bool]string{true: ", locked out"}[u.Disabled])
	return nil
}

type userListCmd struct {
	placeFlags
	jsonFlag
}

func (c *userListCmd) Run(w *world) error {
	d, err := c.openStore(w)
	if err != nil {
		return err
	}
	defer d.close()
	p, err := d.people(w)
	if err != nil {
		return err
	}
	users, err := p.ListUsers(w.ctx)
	if err != nil {
		return fmt.Errorf("listing users: %w", err)
	}
	views, rows := []userView{}, [][]string{}
	for _, u := range users {
		v := viewUser(u)
		views = append(views, v)
		state := "active"
		if v.Disabled {
			state = "disabled"
		}
		rows = append(rows, []string{v.Name, v.Role, state, v.ID, v.Created})
	}
	if c.JSON {
		return w.printJSON(views)
	}
	return w.table([]string{"NAME", "ROLE", "STATE", "ID", "CREATED"}, rows)
}
