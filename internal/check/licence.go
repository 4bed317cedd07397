package check

import (
	"fmt"
	"strings"

	"berth/internal/windows"
)

// licenceChecks are the checks on Windows's own licence. What state it is in lies encrypted in a store that only the running
// Windows reads: a powered-off disk shows which key was installed and which server was set, no more (facts §4.2 ZeroRearmCount, §4.3).
var licenceChecks = []Check{
	{
		Code: "WindowsNotActivated", ReportAs: "UnknownError", Level: Fail, DecidedIn: InGuest,
		Title:      "Windows is activated by your key management servers",
		Source:     "document, Requirements; facts §4.3",
		Evaluation: "The running Windows must say LicenseStatus 1 and the key channel Volume:GVLK. On a disk the installed key's channel is read from DigitalProductId4 at 0x3F8: one that no KMS server activates is a warning, anything else leaves it open, with the KMS server that is set.",
		Remedy: steps(
			"Install the generic key of a KMS client for this edition (docs.microsoft.com, KMS client setup keys), name the server where DNS does not, and activate:",
			"  slmgr /ipk <key>",
			"  slmgr /skms <server>:1688",
			"  slmgr /ato",
			"The last line of the following says when the activation ends:",
			"  slmgr /dlv"),
		judge: judgeActivation,
	},
	{
		Code: "ZeroRearmCount", ReportAs: "ZeroRearmCount", Level: Fail, DecidedIn: InGuest,
		Title:      "Windows can still be rearmed, which Sysprep does",
		Source:     "facts §4.2",
		Evaluation: "RemainingWindowsReArmCount of the running Windows must be above 0. The count is kept encrypted; of a disk only SkipRearm is told.",
		Remedy: steps(
			"See how often it can be (the line Remaining Windows rearm count):",
			"  slmgr /dlv",
			"A count of 0 does not come back: go back to a snapshot from before the last Sysprep, or set Windows up anew."),
		judge: judgeRearm,
	},
}

const (
	protection = currentVersion + `\SoftwareProtectionPlatform`
	// productKeySize and keyChannel are the size of the structure in DigitalProductId4 and where its szKeyType begins, 64 UTF-16
	// units (facts §4.3).
	productKeySize = 0x4F8
	keyChannel     = 0x3F8
	keyChannelSize = 128
	// kmsClient is the channel of the keys that make a Windows a client of a key management server.
	kmsClient = "Volume:GVLK"
	// licensed is SoftwareLicensingProduct.LicenseStatus of a Windows that is activated.
	licensed = 1
)

// licenceStates are the values of SoftwareLicensingProduct.LicenseStatus.
var licenceStates = []string{"unlicensed", "licensed", "in the grace period after set-up", "in the grace period after a change", "in the grace period of one that is not genuine",
	"in notification mode", "in an extended grace period"}

// licence reads what is known of Windows's licence.
func (r *reader) licence(f *Facts) {
	f.KeyChannel = value(r, windows.Software, currentVersion, "DigitalProductId4", keyAlways, "", func(v windows.Value) (string, string, error) {
		if len(v.Data) < productKeySize {
			return "", "", fmt.Errorf("it has %d bytes, not %d", len(v.Data), productKeySize)
		}
		s, err := utf16Text(v.Data[keyChannel : keyChannel+keyChannelSize])
		s, _, _ = strings.Cut(s, "\x00")
		return s, fmt.Sprintf("key type %q at %#x", printable(s), keyChannel), err
	})
	f.KMSHost = value(r, windows.Software, protection, "KeyManagementServiceName", optional, "", text)
	f.SkipRearm = value(r, windows.Software, protection, "SkipRearm", optional, 0, number)
	l, err := ask(r, "licensing", windows.Guest.Licensing)
	at := asked("SoftwareLicensingService, SoftwareLicensingProduct", "the running Windows's licence")
	if err != nil {
		f.RearmCount, f.Licence = unread[int](at, why(err)), unread[windows.Licensing](at, why(err))
		return
	}
	f.RearmCount = read(l.RearmCount, at.says(fmt.Sprintf("RemainingWindowsReArmCount = %d", l.RearmCount)))
	shown := fmt.Sprintf("LicenseStatus = %d, channel %q, KMS %q", l.Status, printable(l.Channel), printable(l.KMS))
	if !l.Expires.IsZero() {
		shown += ", until " + day(l.Expires)
	}
	f.Licence = read(l, at.says(shown))
}

func judgeActivation(f *Facts, _ Params) Verdict {
	on := []fact{f.Licence, f.KeyChannel, f.KMSHost}
	if f.Licence.OK() {
		l := f.Licence.Value
		if l.Status != licensed {
			state := "in a state that is not known"
			if l.Status >= 0 && l.Status < len(licenceStates) {
				state = licenceStates[l.Status]
			}
			return unmet(fmt.Sprintf("Windows is %s (%d).", state, l.Status), on...)
		}
		if !strings.EqualFold(l.Channel, kmsClient) {
			if l.Channel == "" {
				return unknown("This cannot be told: Windows is activated, but does not say by what kind of key.", on...)
			}
			return unmet(fmt.Sprintf("Windows is activated, but by a key of the channel %s and not by a key management server (%s).", printable(l.Channel), kmsClient), on...)
		}
		return pass("Windows is activated by a key management server.", on...)
	}
	// The installed key is on the disk: without one of a KMS client no server activates this Windows.
	if channel := f.KeyChannel; channel.OK() && channel.Value != "" && !strings.EqualFold(channel.Value, kmsClient) {
		v := unmet(fmt.Sprintf("The installed key is of the channel %s. Key management servers activate Windows with one of %s alone.", printable(channel.Value), kmsClient), on...)
		v.Outcome = Warn // the key is not the activation
		return v
	}
	if v, no := missing(f.KeyChannel); no {
		v.Evidence, v.NoWait = evidence(on...), true
		return v
	}
	because := "Whether Windows is activated cannot be told: " + f.Licence.Why + "."
	switch {
	case f.Licence.Why == "":
		because = "Whether Windows is activated cannot be told."
	case f.KeyChannel.Value != "":
		because += " Its key is that of a KMS client"
		if f.KMSHost.OK() && f.KMSHost.Value != "" {
			because += ", and " + printable(f.KMSHost.Value) + " is set as its server"
		}
		because += "."
	}
	return unknown(because, on...)
}

func judgeRearm(f *Facts, _ Params) Verdict {
	on := []fact{f.RearmCount, f.SkipRearm}
	if v, no := missing(f.RearmCount); no {
		v.Evidence = evidence(on...)
		return v
	}
	if f.RearmCount.Value <= 0 {
		return unmet("Windows cannot be rearmed any more.", on...)
	}
	return pass(fmt.Sprintf("Windows can be rearmed %d times more.", f.RearmCount.Value), on...)
}
