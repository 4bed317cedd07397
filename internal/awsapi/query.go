package awsapi

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/smithy-go"
)

// The Query codec reads a form into a struct and writes a struct as XML. A parameter is called as the field, or as its
// tag query says: `query:"ImageId"`; lists are ImageId.1, ImageId.2 (EC2) or Names.member.1 (Query), structures
// UserBucket.S3Key. An element is called as the field, with a small first letter for EC2, or as the tag xml says:
// `xml:"imagesSet>item"`. A nil pointer and an empty enum are left out; an empty list is an empty element, as EC2 writes
// it, unless its tag says omitempty. The fields of an embedded struct count as the struct's own.

const (
	maxFormDepth = 8    // ours; the deepest parameter of the import operations is six deep
	maxFormList  = 1000 // ours; EC2's own limits are this or lower
	formType     = "application/x-www-form-urlencoded"
	xmlType      = "text/xml;charset=UTF-8"
	xmlTime      = "2006-01-02T15:04:05.000Z"
)

// formNode is a form as a tree: DiskContainer.1.Format is three deep.
type formNode struct {
	value    string
	set      bool // the node itself has a value
	used     bool
	children map[string]*formNode
}

// parseForm makes the tree in time linear in the form's length.
func parseForm(q url.Values) (*formNode, error) {
	root := &formNode{}
	for name, values := range q {
		if len(values) != 1 {
			return nil, &Error{Code: "InvalidQueryParameter", Message: "The parameter " + printable(name) + " comes more than once"}
		}
		if strings.Count(name, ".") >= maxFormDepth {
			return nil, unknownParameter(name)
		}
		n := root
		for part := range strings.SplitSeq(name, ".") {
			next := n.children[part]
			if next == nil {
				if n.children == nil {
					n.children = map[string]*formNode{}
				}
				next = &formNode{}
				n.children[part] = next
			}
			n = next
		}
		if !utf8.ValidString(values[0]) || strings.Contains(values[0], "\x00") { // no database takes it for text
			return nil, &Error{Code: "InvalidParameterValue", Message: "The value of the parameter " + printable(name) + " is not text: UTF-8 without NUL"}
		}
		n.value, n.set = values[0], true
	}
	return root, nil
}

func unknownParameter(name string) *Error {
	return &Error{Code: "UnknownParameter", Message: "The parameter " + printable(name) + " is not recognized"}
}

// take removes a parameter from the top of the tree and returns its value.
func (n *formNode) take(name string) (string, bool) {
	c := n.children[name]
	if c == nil || !c.set || len(c.children) > 0 {
		return "", false
	}
	delete(n.children, name)
	return c.value, true
}

// unused finds a parameter that nothing has read.
func (n *formNode) unused(path string) (string, bool) {
	if n.set && !n.used {
		return path, true
	}
	for name, c := range n.children {
		if p, ok := c.unused(join(path, name)); ok {
			return p, true
		}
	}
	return "", false
}

// decodeForm fills in, a pointer to a struct. A parameter that the struct does not have is refused: to ignore
// Encrypted=true would be to do something else than was asked.
func decodeForm(root *formNode, in any, p Protocol) error {
	if err := decodeNode(root, reflect.ValueOf(in).Elem(), "", p); err != nil {
		return err
	}
	if name, ok := root.unused(""); ok {
		return unknownParameter(name)
	}
	return nil
}

func decodeNode(n *formNode, v reflect.Value, path string, p Protocol) error {
	for v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch {
	case v.Kind() == reflect.Struct && v.Type() != timeType:
		for _, f := range wireOf(v.Type(), p).fields {
			if c := n.children[f.in]; c != nil {
				if err := decodeNode(c, v.FieldByIndex(f.index), join(path, f.in), p); err != nil {
					return err
				}
			}
		}
		return nil
	case v.Kind() == reflect.Slice:
		if p == Query {
			if n = n.children["member"]; n == nil {
				return nil
			}
		}
		return decodeList(n, v, path, p)
	}
	if !n.set {
		return nil // only children, which stay unused and are refused
	}
	n.used = true
	bad := &Error{Code: "InvalidParameterValue", Message: fmt.Sprintf("Invalid value '%s' for %s. Expected a value of type %s.", printable(n.value), path, kindName(v.Type()))}
	switch v.Kind() {
	case reflect.String:
		v.SetString(n.value)
	case reflect.Bool:
		if n.value != "true" && n.value != "false" {
			return bad
		}
		v.SetBool(n.value == "true")
	case reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(n.value, 10, v.Type().Bits())
		if err != nil {
			return bad
		}
		v.SetInt(i)
	case reflect.Float64:
		f, err := strconv.ParseFloat(n.value, 64)
		if err != nil || f-f != 0 { // infinities and NaN are no numbers
			return bad
		}
		v.SetFloat(f)
	case reflect.Struct:
		t, err := time.Parse(time.RFC3339, n.value)
		if err != nil {
			return bad
		}
		v.Set(reflect.ValueOf(t.UTC()))
	}
	return nil
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "Boolean"
	case reflect.Int32, reflect.Int64:
		return "Integer"
	case reflect.Float64:
		return "Double"
	case reflect.Struct:
		return "DateTime"
	}
	return "String"
}

// decodeList reads a list by the order of its numbers, which need not be without gaps.
func decodeList(n *formNode, v reflect.Value, path string, p Protocol) error {
	var at []int
	for name := range n.children {
		i, err := strconv.Atoi(name)
		if err != nil || i < 1 || strconv.Itoa(i) != name {
			return unknownParameter(join(path, name))
		}
		at = append(at, i)
	}
	if len(at) > maxFormList {
		return &Error{Code: "InvalidParameterValue", Message: fmt.Sprintf("%s has more than %d elements", path, maxFormList)}
	}
	slices.Sort(at)
	v.Set(reflect.MakeSlice(v.Type(), len(at), len(at)))
	for i, number := range at {
		name := strconv.Itoa(number)
		if err := decodeNode(n.children[name], v.Index(i), join(path, name), p); err != nil {
			return err
		}
	}
	return nil
}

// encodeXML writes an operation's output in the envelope of its protocol.
func encodeXML(svc *service, operation, requestID string, out any) ([]byte, error) {
	v := reflect.Indirect(reflect.ValueOf(out))
	if v.Kind() != reflect.Struct {
		return nil, errors.New("no output")
	}
	var b bytes.Buffer
	if svc.Protocol == EC2 {
		fmt.Fprintf(&b, `%s<%sResponse xmlns="http://ec2.amazonaws.com/doc/%s/">`, xml.Header, operation, svc.Version)
		writeElement(&b, "requestId", requestID)
		xmlStruct(&b, v, EC2)
	} else {
		fmt.Fprintf(&b, `%s<%sResponse xmlns="https://%s.amazonaws.com/doc/%s/"><%[2]sResult>`, xml.Header, operation, svc.Name, svc.Version)
		xmlStruct(&b, v, Query)
		b.WriteString("</" + operation + "Result><ResponseMetadata>")
		writeElement(&b, "RequestId", requestID)
		b.WriteString("</ResponseMetadata>")
	}
	b.WriteString("</" + operation + "Response>")
	return b.Bytes(), nil
}

func writeElement(b *bytes.Buffer, name, text string) {
	b.WriteString("<" + name + ">")
	_ = xml.EscapeText(b, []byte(text)) // a bytes.Buffer does not fail
	b.WriteString("</" + name + ">")
}

func xmlStruct(b *bytes.Buffer, v reflect.Value, p Protocol) {
	for _, f := range wireOf(v.Type(), p).fields {
		field := v.FieldByIndex(f.index)
		if f.omitempty && field.IsZero() || field.Kind() == reflect.String && field.Len() == 0 {
			continue
		}
		for field.Kind() == reflect.Pointer && !field.IsNil() {
			field = field.Elem()
		}
		switch {
		case field.Kind() == reflect.Pointer:
			continue
		case field.Kind() == reflect.Slice:
			b.WriteString("<" + f.out + ">")
			for i := range field.Len() {
				xmlValue(b, f.item, reflect.Indirect(field.Index(i)), p)
			}
			b.WriteString("</" + f.out + ">")
		default:
			xmlValue(b, f.out, field, p)
		}
	}
}

func xmlValue(b *bytes.Buffer, name string, v reflect.Value, p Protocol) {
	if !v.IsValid() {
		return // a nil pointer in a list
	}
	switch {
	case v.Type() == timeType:
		writeElement(b, name, v.Interface().(time.Time).UTC().Format(xmlTime))
	case v.Kind() == reflect.Struct:
		b.WriteString("<" + name + ">")
		xmlStruct(b, v, p)
		b.WriteString("</" + name + ">")
	case v.Kind() == reflect.Float64:
		writeElement(b, name, strconv.FormatFloat(v.Float(), 'f', -1, 64))
	default:
		writeElement(b, name, fmt.Sprint(v.Interface()))
	}
}

// encodeXMLError writes the error envelope of EC2 or of the other Query services. svc is nil where nobody knows which is meant.
func encodeXMLError(p Protocol, svc *service, requestID string, err smithy.APIError) []byte {
	var b bytes.Buffer
	b.WriteString(xml.Header)
	if p == EC2 {
		b.WriteString("<Response><Errors><Error>")
		writeElement(&b, "Code", err.ErrorCode())
		writeElement(&b, "Message", err.ErrorMessage())
		b.WriteString("</Error></Errors>")
		writeElement(&b, "RequestID", requestID)
		b.WriteString("</Response>")
		return b.Bytes()
	}
	side := "Sender"
	if err.ErrorFault() == smithy.FaultServer {
		side = "Receiver"
	}
	if svc != nil {
		fmt.Fprintf(&b, `<ErrorResponse xmlns="https://%s.amazonaws.com/doc/%s/"><Error>`, svc.Name, svc.Version)
	} else {
		b.WriteString("<ErrorResponse><Error>")
	}
	writeElement(&b, "Type", side)
	writeElement(&b, "Code", err.ErrorCode())
	writeElement(&b, "Message", err.ErrorMessage())
	b.WriteString("</Error>")
	writeElement(&b, "RequestId", requestID)
	b.WriteString("</ErrorResponse>")
	return b.Bytes()
}
