package windows

import "fmt"

// Change is one alteration of an installation that mends what a check found. The types of this file are all there are.
//
// A powered-off disk takes SetValue, DeleteValue and EnableAccount (offline.System.Patch); a running Windows takes all of them
// (live.System.Apply). A Change is data: it can be shown before it is made, and says in String what it will do.
type Change interface {
	fmt.Stringer
	change()
}

// SetValue sets a value of a key that exists; it is added where the key has none of that name. In the SYSTEM hive
// CurrentControlSet stands for the control set in use, as in [System].
type SetValue struct {
	Hive  Hive
	Key   string // path below the hive's root, backslashes
	Value Value
}

// DeleteValue removes a value. That it is not there is no error.
type DeleteValue struct {
	Hive      Hive
	Key, Name string
}

// EnableAccount clears the "disabled" mark of a local account.
type EnableAccount struct {
	Name string
	RID  uint32
}

// CreateAccount makes a local account with a random password and puts it into the group Administrators; one that is there
// already is only put into the group. Only a running Windows can.
type CreateAccount struct{ Name string }

// RunUninstaller runs a program's own silent uninstaller. Only a running Windows can.
type RunUninstaller struct {
	Program string // as people know it: "PCoIP Agent"
	Path    string // `C:\Program Files (x86)\Teradici\PCoIP Agent\uninst.exe`
	Args    []string
}

// RemovePackage removes an AppX package from every user and from what new users get. Only a running Windows can.
type RemovePackage struct{ FullName string }

func (SetValue) change()       {}
func (DeleteValue) change()    {}
func (EnableAccount) change()  {}
func (CreateAccount) change()  {}
func (RunUninstaller) change() {}
func (RemovePackage) change()  {}

func (c SetValue) String() string {
	return fmt.Sprintf(`set %s\%s\%s to %s`, c.Hive, c.Key, c.Value.Name, c.Value)
}
func (c DeleteValue) String() string   { return fmt.Sprintf(`delete %s\%s\%s`, c.Hive, c.Key, c.Name) }
func (c EnableAccount) String() string { return fmt.Sprintf("enable the account %s", c.Name) }
func (c CreateAccount) String() string {
	return fmt.Sprintf("create the account %s and make it an administrator", c.Name)
}
func (c RunUninstaller) String() string { return "uninstall " + c.Program }
func (c RemovePackage) String() string  { return "remove the package " + c.FullName }
