package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"

	"berth/internal/windows"
	"berth/internal/windows/live"
	"berth/internal/windows/registry"
)

// unattend is the answer file for Windows' set-up when it starts next after Sysprep (Microsoft, "Unattended Windows Setup Reference"):
// languages as they are, the registered owner as he is, and no questions, as Amazon's checker prepares it (facts §4.1).
type unattend struct {
	XMLName  xml.Name `xml:"urn:schemas-microsoft-com:unattend unattend"`
	Settings settings `xml:"settings"`
}

type settings struct {
	Pass       string      `xml:"pass,attr"`
	Components []component `xml:"component"`
}

type component struct {
	Name         string `xml:"name,attr"`
	Architecture string `xml:"processorArchitecture,attr"`
	Token        string `xml:"publicKeyToken,attr"`
	Language     string `xml:"language,attr"`
	Scope        string `xml:"versionScope,attr"`

	InputLocale  string `xml:"InputLocale,omitempty"`
	SystemLocale string `xml:"SystemLocale,omitempty"`
	UILanguage   string `xml:"UILanguage,omitempty"`
	UserLocale   string `xml:"UserLocale,omitempty"`

	Organization string `xml:"RegisteredOrganization,omitempty"`
	Owner        string `xml:"RegisteredOwner,omitempty"`
	TimeZone     string `xml:"TimeZone,omitempty"`
	OOBE         *oobe  `xml:"OOBE"`
}

type oobe struct {
	HideEULAPage              bool
	HideOEMRegistrationScreen bool
	HideOnlineAccountScreens  bool
	ProtectYourPC             int // 3: nothing is turned on
}

// answerFile makes the answer file of what the machine says of itself.
func answerFile(sys windows.System, locales live.Locales) ([]byte, error) {
	c := component{Architecture: "amd64", Token: "31bf3856ad364e35", Language: "neutral", Scope: "nonSxS"}
	international, shell := c, c
	international.Name, shell.Name = "Microsoft-Windows-International-Core", "Microsoft-Windows-Shell-Setup"
	international.SystemLocale, international.UserLocale = locales.System, locales.User
	const current = `Microsoft\Windows NT\CurrentVersion`
	for _, text := range []struct {
		to        *string
		hive      windows.Hive
		key, name string
	}{
		{&international.InputLocale, windows.Default, `Keyboard Layout\Preload`, "1"},
		{&international.UILanguage, windows.Default, `Control Panel\Desktop`, "PreferredUILanguages"},
		{&shell.Organization, windows.Software, current, "RegisteredOrganization"},
		{&shell.Owner, windows.Software, current, "RegisteredOwner"},
		{&shell.TimeZone, windows.SystemHive, `CurrentControlSet\Control\TimeZoneInformation`, "TimeZoneKeyName"},
	} {
		k, err := sys.Open(text.hive, text.key)
		var v windows.Value
		if err == nil {
			v, err = k.Value(text.name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // Windows has its own default
		}
		if err == nil {
			*text.to, err = firstText(v)
		}
		if err != nil {
			return nil, fmt.Errorf(`the answer file: %s\%s\%s: %w`, text.hive, text.key, text.name, err)
		}
	}
	// A layout's number, "00000409", is the keyboard; the answer file wants the language before it.
	if n := international.InputLocale; len(n) == 8 {
		international.InputLocale = n[4:] + ":" + n
	}
	if international.UILanguage == "" {
		international.UILanguage = "en-US" // document, Requirements: English (United States) is the primary language
	}
	shell.OOBE = &oobe{HideEULAPage: true, HideOEMRegistrationScreen: true, HideOnlineAccountScreens: true, ProtectYourPC: 3}
	b, err := xml.MarshalIndent(unattend{Settings: settings{Pass: "oobeSystem", Components: []component{international, shell}}}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append([]byte(xml.Header), b...), nil
}

// firstText is a text, or the first of several.
func firstText(v windows.Value) (string, error) {
	if v.Type != windows.RegMultiSZ {
		return registry.SZ(v)
	}
	list, err := registry.MultiSZ(v)
	if err != nil || len(list) == 0 {
		return "", err
	}
	return list[0], nil
}
