package check

import (
	"bytes"
	"fmt"
	"slices"

	"berth/internal/windows"
)

// accountChecks are the checks on the account WorkSpaces_BYOL.
var accountChecks = []Check{
	{
		Code: "WorkspacesBYOLAccountNotFound", ReportAs: "WorkspacesBYOLAccountNotFound", Level: Warn, DecidedIn: OnDisk,
		Title:      "The local account WorkSpaces_BYOL exists",
		Source:     "document, Requirements; facts §4.2",
		Evaluation: `SAM\Domains\Account\Users\Names must have the key WorkSpaces_BYOL, in any case.`,
		Fix:        "The account is created, with a random password, and made an administrator",
		Remedy: steps(
			"Make the account (the first command asks for a password: note it down) and make it an administrator:",
			"  net user WorkSpaces_BYOL * /add",
			"  net localgroup Administrators WorkSpaces_BYOL /add"),
		judge: judgeAccount,
		fix:   fixAccount,
	},
	{
		Code: "WorkspacesBYOLAccountNotAdministrator", ReportAs: "WorkspacesBYOLAccountNotFound", Level: Fail, DecidedIn: OnDisk,
		Title:      "The account WorkSpaces_BYOL is a local administrator",
		Source:     "document, Requirements; facts §4.3",
		Applies:    "machines that have the account",
		Evaluation: `The SID of the account must be among the members in value C of SAM\Domains\Builtin\Aliases\00000220.`,
		Fix:        "The account is made an administrator",
		Remedy: steps(
			"Make it an administrator:",
			"  net localgroup Administrators WorkSpaces_BYOL /add"),
		judge: judgeAdministrator,
		fix:   fixAccount,
	},
	{
		Code: "WorkspacesBYOLAccountDisabled", ReportAs: "WorkspacesBYOLAccountDisabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:      "The account WorkSpaces_BYOL is enabled",
		Source:     "document, Requirements; facts §4.2",
		Evaluation: "Bit 0x0001 of the flags at 0x38 of the account's value F must be clear. Without the account it is not met either, as with Amazon's checker.",
		Fix:        `The mark "disabled" of the account is cleared; where there is no account, it is created as for WorkspacesBYOLAccountNotFound`,
		Remedy: steps(
			"Enable it:",
			"  net user WorkSpaces_BYOL /active:yes",
			"Where there is no such account, make it (the first command asks for a password: note it down):",
			"  net user WorkSpaces_BYOL * /add",
			"  net localgroup Administrators WorkSpaces_BYOL /add"),
		judge: judgeAccountEnabled,
		fix:   fixAccountDisabled,
	},
}

func judgeAccount(f *Facts, _ Params) Verdict {
	if v, no := missing(f.BYOLAccount); no {
		return v
	}
	if f.BYOLAccount.Value == 0 {
		return unmet("There is no local account "+byolAccount+".", f.BYOLAccount)
	}
	return pass(fmt.Sprintf("The account %s exists (RID %d).", byolAccount, f.BYOLAccount.Value), f.BYOLAccount, f.BYOLAccountAdministrator)
}

func judgeAdministrator(f *Facts, _ Params) Verdict {
	if v, no := missing(f.BYOLAccount); no {
		return v
	}
	if f.BYOLAccount.Value == 0 {
		return notApplicable("There is no account "+byolAccount+"; see WorkspacesBYOLAccountNotFound.", f.BYOLAccount)
	}
	if v, no := missing(f.BYOLAccountAdministrator); no {
		return v
	}
	if !f.BYOLAccountAdministrator.Value {
		return unmet("The account "+byolAccount+" exists but is not a member of the local group Administrators.", f.BYOLAccount, f.BYOLAccountAdministrator)
	}
	return pass("The account "+byolAccount+" is a member of the local group Administrators.", f.BYOLAccountAdministrator)
}

// judgeAccountEnabled also fires when there is no account, as Amazon's does (facts §4.2).
func judgeAccountEnabled(f *Facts, _ Params) Verdict {
	if v, no := missing(f.BYOLAccount); no {
		return v
	}
	if f.BYOLAccount.Value == 0 {
		return unmet("There is no account "+byolAccount+" that could be enabled; see WorkspacesBYOLAccountNotFound.", f.BYOLAccount)
	}
	if v, no := missing(f.BYOLAccountFlags); no {
		return v
	}
	if f.BYOLAccountFlags.Value&windows.AccountDisabled != 0 {
		return unmet("The account "+byolAccount+" is disabled.", f.BYOLAccount, f.BYOLAccountFlags)
	}
	return pass("The account "+byolAccount+" is enabled.", f.BYOLAccountFlags)
}

// isMember tells whether a local group's value C lists a SID.
func isMember(c []byte, group uint32, sid windows.SID) (bool, error) {
	members, err := windows.GroupMembers(c, group)
	if slices.ContainsFunc(members, func(m windows.SID) bool { return bytes.Equal(m, sid) }) {
		return true, nil // whatever comes behind
	}
	return false, err
}
