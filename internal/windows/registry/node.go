package registry

import (
	"strings"
	"time"

	"berth/internal/windows"
)

// Node is a key in memory with all that is below it: what [Parse] reads and [Build] and [Format] write. Its names keep their
// case and compare without it.
type Node struct {
	Name string
	// LastWrite is when the key last changed; zero stands for [BuildOptions.LastWrite].
	LastWrite time.Time
	Values    []windows.Value
	Keys      []*Node
}

// Key is the key at a path below n (backslashes; "" is n), or nil.
func (n *Node) Key(path string) *Node {
	for _, name := range splitPath(path) {
		if n = n.child(name); n == nil {
			return nil
		}
	}
	return n
}

// Make is the key at a path below n (backslashes; "" is n), made where it does not exist.
func (n *Node) Make(path string) *Node {
	for _, name := range splitPath(path) {
		c := n.child(name)
		if c == nil {
			c = &Node{Name: name}
			n.Keys = append(n.Keys, c)
		}
		n = c
	}
	return n
}

func (n *Node) child(name string) *Node {
	for _, c := range n.Keys {
		if EqualNames(c.Name, name) {
			return c
		}
	}
	return nil
}

// Value is the value of that name ("" is the default value).
func (n *Node) Value(name string) (windows.Value, bool) {
	for _, v := range n.Values {
		if EqualNames(v.Name, name) {
			return v, true
		}
	}
	return windows.Value{}, false
}

// Set adds a value, or replaces the one of the same name.
func (n *Node) Set(v windows.Value) {
	for i := range n.Values {
		if EqualNames(n.Values[i].Name, v.Name) {
			n.Values[i] = v
			return
		}
	}
	n.Values = append(n.Values, v)
}

// splitPath takes a path apart at its backslashes; empty components do not count.
func splitPath(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '\\' })
}
