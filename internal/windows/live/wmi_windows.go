package live

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"

	ole "github.com/go-ole/go-ole"
	"github.com/go-ole/go-ole/oleutil"
)

// sFalse is S_FALSE: COM had been set up on this thread before, which is no error.
const sFalse = 1

// maxRows bounds what a query may answer.
const maxRows = 10_000

// wmi asks a query in the Windows Management Instrumentation's language and returns the properties asked for of every object.
// A class or namespace that does not exist is an error, not an empty answer; a property that does not exist is nil.
func wmi(namespace, query string, properties ...string) ([]map[string]any, error) {
	type answer struct {
		rows []map[string]any
		err  error
	}
	done := make(chan answer, 1)
	// COM belongs to a thread: this one is not given back to other goroutines before it is done.
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		rows, err := wmiHere(namespace, query, properties)
		done <- answer{rows, err}
	}()
	a := <-done
	if code := raised(a.err); code != 0 { // the error's own text is longer and says less
		a.err = fmt.Errorf("COM error %#x", code)
	}
	if a.err != nil {
		return nil, fmt.Errorf(`WMI %s, %q: %w`, namespace, query, a.err)
	}
	return a.rows, nil
}

// wbemNotFound is WBEM_E_NOT_FOUND.
const wbemNotFound = 0x80041002

// raised is the code of an error of COM: what the method raised, if it raised something (0x80041010 is an invalid class, 0x8004100e an
// invalid namespace), else its own. 0: it is no error of COM.
func raised(err error) uint32 {
	var com *ole.OleError
	if !errors.As(err, &com) {
		return 0
	}
	var by ole.EXCEPINFO
	if errors.As(com.SubError(), &by) && by.SCODE() != 0 {
		return by.SCODE()
	}
	return uint32(com.Code())
}

func wmiHere(namespace, query string, properties []string) (rows []map[string]any, err error) {
	var already *ole.OleError
	if err := ole.CoInitializeEx(0, ole.COINIT_MULTITHREADED); err != nil && !(errors.As(err, &already) && already.Code() == sFalse) {
		return nil, err
	}
	defer ole.CoUninitialize()
	unknown, err := oleutil.CreateObject("WbemScripting.SWbemLocator")
	if err != nil {
		return nil, fmt.Errorf("locator: %w", err)
	}
	defer unknown.Release()
	locator, err := unknown.QueryInterface(ole.IID_IDispatch)
	if err != nil {
		return nil, fmt.Errorf("locator: %w", err)
	}
	defer locator.Release()
	server, err := oleutil.CallMethod(locator, "ConnectServer", ".", namespace)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer forget(server)
	set, err := oleutil.CallMethod(server.ToIDispatch(), "ExecQuery", query)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	defer forget(set)
	err = oleutil.ForEach(set.ToIDispatch(), func(v *ole.VARIANT) error {
		defer forget(v)
		if len(rows) == maxRows {
			return fmt.Errorf("more than %d objects", maxRows)
		}
		row := map[string]any{}
		for _, name := range properties {
			value, err := property(v.ToIDispatch(), name)
			if raised(err) == wbemNotFound { // this Windows is older than the property
				value, err = nil, nil
			}
			if err != nil {
				return fmt.Errorf("property %s: %w", name, err)
			}
			row[name] = value
		}
		rows = append(rows, row)
		return nil
	})
	return rows, err
}

// property reads Properties_.Item(name).Value, which Wine knows, too; it has no late binding of the properties themselves.
func property(object *ole.IDispatch, name string) (any, error) {
	all, err := oleutil.GetProperty(object, "Properties_")
	if err != nil {
		return nil, err
	}
	defer forget(all)
	item, err := oleutil.CallMethod(all.ToIDispatch(), "Item", name)
	if err != nil {
		return nil, err
	}
	defer forget(item)
	value, err := oleutil.GetProperty(item.ToIDispatch(), "Value")
	if err != nil {
		return nil, err
	}
	defer forget(value)
	if value.VT&ole.VT_ARRAY != 0 {
		return value.ToArray().ToValueArray(), nil
	}
	return value.Value(), nil
}

// forget gives back what a variant holds; that it cannot be given back helps nobody to know.
func forget(v *ole.VARIANT) { _ = v.Clear() }

// count is a number that WMI answered; it sends them as signed, or as text where they are long.
func count(v any) (int, bool) {
	switch n := v.(type) {
	case int8:
		return int(n), true
	case int16:
		return int(n), true
	case int32:
		return int(n), true
	case int64:
		return int(n), true
	case uint8:
		return int(n), true
	case uint16:
		return int(n), true
	case uint32:
		return int(n), true
	case uint64:
		return int(n), true
	case string:
		i, err := strconv.Atoi(n)
		return i, err == nil
	}
	return 0, false
}

// word is a text that WMI answered; what is not set is "".
func word(v any) string {
	s, _ := v.(string)
	return s
}
