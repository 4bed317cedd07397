package check

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"berth/internal/windows"
)

// defaultProfileChecks is the check on the profile that new users get. What Windows itself puts into it is not written down anywhere,
// and updates change it; so the check looks for signs that each tell of somebody's hand, and says nothing of what else there is.
var defaultProfileChecks = []Check{
	{
		Code: "DefaultProfileCustomized", ReportAs: "UnknownError", Level: Warn, DecidedIn: OnDisk,
		Title:   "The default user profile shows no sign of having been customized",
		Source:  "document, Requirements (do not customize C:\\Users\\Default); facts §4.3",
		Applies: "before the export; ingestion does not refuse an image for it",
		Evaluation: "There must be no file in the folders of C:/Users/Default in which Windows puts none (Desktop, Documents, Downloads, Startup ...), no start menu layout, " +
			"and in its NTUSER.DAT no program that starts with users (Run) but OneDrive's set-up, no group policy but certificates, no wallpaper but Windows's own and no network drive. " +
			"It is a rule of thumb: other settings are not told from Windows's own.",
		Remedy: steps(
			"Take what is named above out of C:\\Users\\Default, and give users their settings by group policy once the image is made. Files are hidden:",
			"  explorer C:\\Users\\Default",
			"Settings are in its registry. Load it, delete them, and unload it:",
			`  reg load HKU\NewUsers C:\Users\Default\NTUSER.DAT`,
			`  reg delete HKU\NewUsers\Software\Microsoft\Windows\CurrentVersion\Run /v <name>`,
			`  reg unload HKU\NewUsers`),
		judge: judgeDefaultProfile,
	},
}

const (
	defaultProfile = "Users/Default"
	defaultHive    = defaultProfile + "/NTUSER.DAT"
	// maxProfileFiles bounds the entries of the default profile's folders, and the names in its registry's keys, that are looked at.
	maxProfileFiles = 2_000
)

// profileFolders are the folders of the default profile in which Windows puts nothing but desktop.ini and junctions.
var profileFolders = []string{"Desktop", "Documents", "Downloads", "Music", "Pictures", "Saved Games", "Videos", "AppData/Roaming/Microsoft/Windows/Start Menu/Programs/Startup"}

// layoutFiles are files that only who customizes a profile puts into it: the layout of the start menu (Microsoft, "Customize and export
// Start layout").
var layoutFiles = []string{"AppData/Local/Microsoft/Windows/Shell/LayoutModification.xml", "AppData/Local/Microsoft/Windows/Shell/LayoutModification.json"}

// newUsers reads what new users get.
func (r *reader) newUsers(f *Facts) {
	f.DefaultProfile = r.profileFiles()
	f.DefaultSettings = r.profileSettings()
}

// profileFiles looks for files in the default profile that Windows does not put there.
func (r *reader) profileFiles() Known[[]string] {
	if there := r.exists(defaultProfile); !there.OK() || !there.Value {
		if there.OK() {
			return unread[[]string](inFile(defaultProfile), "the folder, which every Windows has, is missing")
		}
		return likewise[[]string](there)
	}
	var t traces
	for _, folder := range profileFolders {
		folder = defaultProfile + "/" + folder
		list, err := fs.ReadDir(r.sys.Files(), folder)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			t.add("", unread[bool](inFile(folder), why(err)))
		case len(list) > maxProfileFiles:
			t.add("", unread[bool](inFile(folder), fmt.Sprintf("it has %d entries, more than the %d that are read", len(list), maxProfileFiles)))
		}
		for _, entry := range list[:min(len(list), maxProfileFiles)] {
			if entry.Type()&fs.ModeType&^fs.ModeDir != 0 || strings.EqualFold(entry.Name(), "desktop.ini") { // a junction: "My Music"
				continue
			}
			t.add(entry.Name(), read(true, inFile(folder+"/"+entry.Name())))
		}
	}
	for _, name := range layoutFiles {
		t.add(path.Base(name), r.exists(defaultProfile+"/"+name))
	}
	if k := t.known(); !k.OK() || len(k.Value) > 0 {
		return k
	}
	return read([]string(nil), inFile(defaultProfile).plus(" has no file in the places for a user's own"))
}

// profileSettings looks for settings in the default profile's hive that Windows does not make there. The hive is no hive of the machine:
// it lies in a file that nobody has open, running or not.
func (r *reader) profileSettings() Known[[]string] {
	u, done, err := r.user("", defaultHive)
	defer done()
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("the file, which every Windows has, is missing")
	}
	if err != nil {
		return unread[[]string](u.hiveEvidence(), why(err))
	}
	var t traces
	// names lists subkeys, or values, but those that Windows makes.
	names := func(key string, values bool, sign string, but ...string) {
		at := u.at(userHive, key)
		k, err := u.open(userHive, key)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		var found []string
		if err == nil {
			at = at.of(k)
			if values {
				found, err = k.Values()
			} else {
				found, err = k.Subkeys()
			}
		}
		if err == nil && len(found) > maxProfileFiles {
			err = fmt.Errorf("it has %d entries, more than the %d that are read", len(found), maxProfileFiles)
		}
		if err != nil {
			t.add("", unread[bool](at, why(err)))
			return
		}
		for _, name := range found {
			if slices.ContainsFunc(but, func(b string) bool { return strings.EqualFold(name, b) }) {
				continue
			}
			if values {
				t.add(sign+" "+name, valueOf(u, k, at, name, always, true, isThere))
				continue
			}
			here := at.below(name)
			if sub, err := k.Open(name); err == nil {
				here = here.of(sub)
			}
			t.add(sign+" "+name, read(true, here.plus(" is there")))
		}
	}
	names(`Software\Microsoft\Windows\CurrentVersion\Run`, true, "start of", "OneDriveSetup")
	names(`Software\Policies`, false, "policies of", "Microsoft", "Power")
	names(`Software\Policies\Microsoft`, false, "policies for", "SystemCertificates", "Windows")
	names(`Software\Policies\Microsoft\Windows`, false, "policies for Windows,", "CurrentVersion", "CloudContent", "DataCollection")
	names(`Network`, false, "network drive")
	t.add("wallpaper", u.wallpaper())
	if st := u.sys.Hive(userHive); st.Damaged != "" { // absence proves nothing
		t.add("", unread[bool](u.hiveEvidence(), "the hive is damaged: "+printable(st.Damaged)))
	}
	if k := t.known(); !k.OK() || len(k.Value) > 0 {
		return k
	}
	return read([]string(nil), u.hiveEvidence().plus(" has no program that starts with users, no policy, no wallpaper and no network drive but Windows's own"))
}

// isThere decodes a value whose being there is the fact.
func isThere(v windows.Value) (bool, string, error) {
	_, shown, err := text(v)
	if err != nil {
		shown = fmt.Sprintf("%d bytes", len(v.Data))
	}
	return true, shown, nil
}

// wallpaper tells whether new users get another wallpaper than Windows's.
func (r *reader) wallpaper() Known[bool] {
	return value(r, userHive, `Control Panel\Desktop`, "Wallpaper", optional, false, func(v windows.Value) (bool, string, error) {
		s, shown, err := text(v)
		low := strings.ToLower(s)
		own := low == "" || strings.HasPrefix(low, `c:\windows\web\`) || strings.HasPrefix(low, `%systemroot%\web\`) || strings.HasPrefix(low, `%windir%\web\`)
		return !own, shown, err
	})
}

func judgeDefaultProfile(f *Facts, p Params) Verdict {
	on := []fact{f.DefaultProfile, f.DefaultSettings}
	if p.Ingestion {
		return notRefused(on...)
	}
	var found []string
	if len(f.DefaultProfile.Value) > 0 {
		found = append(found, "files that Windows does not put there ("+names(f.DefaultProfile.Value)+")")
	}
	if len(f.DefaultSettings.Value) > 0 {
		found = append(found, "settings that Windows does not make ("+names(f.DefaultSettings.Value)+")")
	}
	if len(found) > 0 {
		return unmet("C:\\Users\\Default has "+strings.Join(found, ", and ")+".", on...)
	}
	if v, no := missing(on...); no {
		return v
	}
	return pass("C:\\Users\\Default shows no sign of having been customized.", on...)
}
