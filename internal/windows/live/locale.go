package live

// Locales are the names of the locales in force ("en-US").
type Locales struct {
	System string `json:"system"` // for programs that know no Unicode
	User   string `json:"user"`   // formats of the user who runs this program
}
