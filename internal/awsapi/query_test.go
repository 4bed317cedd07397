package awsapi

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// importInput has the shapes that the parameters of EC2's import operations have.
type importInput struct {
	Description    *string
	Encrypted      *bool
	DiskContainers []diskContainer `query:"DiskContainer"`
	ClientData     *struct {
		UploadSize  *float64
		UploadStart *time.Time
	}
	Tags       []tagSpec `query:"TagSpecification"`
	MaxResults *int32
	Size       *int64
	BootMode   string
}
type diskContainer struct {
	Format     *string
	UserBucket *struct{ S3Bucket, S3Key *string }
}
type tagSpec struct {
	ResourceType string
	Tags         []tag `query:"Tag"`
}

func form(t testing.TB, text string) *formNode {
	t.Helper()
	q, err := url.ParseQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	n, err := parseForm(q)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestQueryInput(t *testing.T) {
	// What the AWS CLI sends for ImportImage, and a little more.
	const text = "Description=d+%C3%BC&Encrypted=false&DiskContainer.1.Format=ova&DiskContainer.1.UserBucket.S3Bucket=b&DiskContainer.1.UserBucket.S3Key=k%2Fx" +
		"&DiskContainer.10.Format=vhd&DiskContainer.2.Format=raw&TagSpecification.1.ResourceType=import-image-task&TagSpecification.1.Tag.1.Key=k&TagSpecification.1.Tag.1.Value=v" +
		"&BootMode=uefi&ClientData.UploadSize=1.5&ClientData.UploadStart=2026-01-02T03%3A04%3A05.678Z&MaxResults=5&Size=5000000000"
	var in importInput
	if err := decodeForm(form(t, text), &in, EC2); err != nil {
		t.Fatal(err)
	}
	want := importInput{Description: aws.String("d ü"), Encrypted: aws.Bool(false), BootMode: "uefi", MaxResults: aws.Int32(5), Size: aws.Int64(5e9),
		DiskContainers: []diskContainer{{Format: aws.String("ova"), UserBucket: &struct{ S3Bucket, S3Key *string }{aws.String("b"), aws.String("k/x")}}, {Format: aws.String("raw")}, {Format: aws.String("vhd")}},
		Tags:           []tagSpec{{ResourceType: "import-image-task", Tags: []tag{{aws.String("k"), aws.String("v")}}}}}
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	want.ClientData = &struct {
		UploadSize  *float64
		UploadStart *time.Time
	}{aws.Float64(1.5), &at}
	if !reflect.DeepEqual(in, want) {
		t.Errorf("got %+v", in)
	}
	// The standard Query protocol puts "member" into its lists.
	var names struct{ Names []string }
	if err := decodeForm(form(t, "Names.member.1=a&Names.member.2=b"), &names, Query); err != nil || strings.Join(names.Names, "") != "ab" {
		t.Errorf("%v, %v", names, err)
	}
}

func TestQueryRefusals(t *testing.T) {
	long := strings.Builder{}
	for i := range maxFormList + 1 {
		fmt.Fprintf(&long, "&DiskContainer.%d.Format=x", i+1)
	}
	for text, want := range map[string]string{
		"Encrypted=1":                                  "InvalidParameterValue: Invalid value '1' for Encrypted. Expected a value of type Boolean.",
		"MaxResults=2147483648":                        "InvalidParameterValue: Invalid value '2147483648' for MaxResults. Expected a value of type Integer.",
		"MaxResults=x":                                 "InvalidParameterValue",
		"ClientData.UploadSize=Inf":                    "InvalidParameterValue",
		"ClientData.UploadSize=NaN":                    "InvalidParameterValue",
		"ClientData.UploadStart=today":                 "InvalidParameterValue: Invalid value 'today' for ClientData.UploadStart. Expected a value of type DateTime.",
		"Nonsense=1":                                   "UnknownParameter: The parameter Nonsense is not recognized",
		"description=1":                                "UnknownParameter: The parameter description is not recognized",
		"DiskContainer.1.Nonsense=1":                   "UnknownParameter: The parameter DiskContainer.1.Nonsense is not recognized",
		"DiskContainer.0.Format=1":                     "UnknownParameter: The parameter DiskContainer.0 is not recognized",
		"DiskContainer.01.Format=1":                    "UnknownParameter",
		"DiskContainer.x.Format=1":                     "UnknownParameter",
		"DiskContainer.1=x":                            "UnknownParameter: The parameter DiskContainer.1 is not recognized",
		"DiskContainer=x":                              "UnknownParameter: The parameter DiskContainer is not recognized",
		"Description.Value=x":                          "UnknownParameter: The parameter Description.Value is not recognized",
		long.String()[1:]:                              "InvalidParameterValue: DiskContainer has more than 1000 elements",
		"DiskContainer.999999999999999999999.Format=x": "UnknownParameter",
	} {
		err := decodeForm(form(t, text), &importInput{}, EC2)
		if !strings.HasPrefix(errText(err), want) {
			t.Errorf("%.60s: %v, want %s", text, err, want)
		}
	}
	for text, want := range map[string]string{"a=1&a=2": "InvalidQueryParameter", "a.b.c.d.e.f.g.h.i=1": "UnknownParameter", "a=%00": "InvalidParameterValue", "a=%ff": "InvalidParameterValue"} {
		q, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseForm(q); code(err) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

type xmlOutput struct {
	ImageId   *string
	Progress  string
	Empty     string
	EmptyText *string
	Details   []xmlDetail `xml:"snapshotDetailSet>item"`
	None      []xmlDetail `xml:"noneSet>item"`
	Nothing   []xmlDetail `xml:"emptySet>item"`
	Names     []string    `xml:"nameSet>name"`
	Pointers  []*string
	When      *time.Time
	Nested    *xmlDetail
	Count     *int32
	Public    *bool `xml:"isPublic"`
	Encrypted bool  `xml:"encrypted,omitempty"`
	Tags      []tag `xml:"tagSet>item,omitempty"`
	embedded
}
type embedded struct {
	BootMode bool `xml:"isUEFI"`
}
type xmlDetail struct {
	DiskImageSize *float64
	Format        *string
}

func TestQueryOutput(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	out := &xmlOutput{ImageId: aws.String("a<&>\"b"), Progress: "5", EmptyText: aws.String(""), Details: []xmlDetail{{aws.Float64(1.5e10), aws.String("VMDK")}, {}},
		Nothing: []xmlDetail{}, Names: []string{"x", ""}, Pointers: []*string{aws.String("p"), nil}, When: &at, Nested: &xmlDetail{Format: aws.String("\x00")}, Count: aws.Int32(0), Public: aws.Bool(false)}
	b, err := encodeXML(&service{Service: Service{Name: "ec2", Protocol: EC2, Version: "2016-11-15"}}, "Op", "r1", out)
	if err != nil {
		t.Fatal(err)
	}
	const want = xml.Header + `<OpResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r1</requestId><imageId>a&lt;&amp;&gt;&#34;b</imageId><progress>5</progress><emptyText></emptyText>` +
		`<snapshotDetailSet><item><diskImageSize>15000000000</diskImageSize><format>VMDK</format></item><item></item></snapshotDetailSet><noneSet></noneSet><emptySet></emptySet><nameSet><name>x</name><name></name></nameSet>` +
		`<pointers><item>p</item></pointers><when>2026-01-02T02:04:05.000Z</when><nested><format>�</format></nested><count>0</count><isPublic>false</isPublic><isUEFI>false</isUEFI></OpResponse>`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	if _, err := encodeXML(&service{}, "Op", "r1", (*xmlOutput)(nil)); err == nil {
		t.Error("no output was encoded")
	}
}

func TestEC2Validation(t *testing.T) {
	type container struct {
		ImageId  *string
		BootMode string
	}
	m, err := LoadModel([]byte(`{"operations":{"Op":"In"},"shapes":{"In":{"required":["ImageId"],"members":{"Name":"Name","DiskContainer":"Disks","ImageId":"Ids"}},"Name":{"min":3,"max":5},"Disks":{"list":"Disk"},"Disk":{"members":{"BootMode":"Mode"}},"Mode":{"enum":["uefi","legacy-bios"]},"Ids":{"max":1}}}`))
	if err != nil {
		t.Fatal(err)
	}
	type input struct {
		Name     *string
		ImageIds []string    `query:"ImageId"`
		Disks    []container `query:"DiskContainer"`
	}
	for _, tt := range []struct {
		in   input
		want string
	}{
		{input{ImageIds: []string{"a"}}, ""},
		{input{}, "MissingParameter: The request must contain the parameter ImageId"},
		{input{ImageIds: []string{"a"}, Name: aws.String("ab")}, "InvalidParameterValue: Value (ab) for parameter Name is invalid. Member must have length greater than or equal to 3"},
		{input{ImageIds: []string{"a"}, Disks: []container{{}, {BootMode: "floppy"}}}, "InvalidParameterValue: Value (floppy) for parameter DiskContainer.2.BootMode is invalid. Member must satisfy enum value set: [uefi, legacy-bios]"},
	} {
		if err := m.Validate("Op", &tt.in, EC2); errText(err) != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

func FuzzQuery(f *testing.F) {
	f.Add("Description=d&DiskContainer.1.Format=ova&TagSpecification.1.Tag.1.Key=k&ClientData.UploadStart=2026-01-02T03:04:05Z")
	f.Add("DiskContainer.1.UserBucket.S3Bucket=b&MaxResults=5&Encrypted=true")
	f.Add("a.......=1&....=&.=&=")
	f.Add("DiskContainer.99999999999999999999.Format=1&DiskContainer.-1=")
	f.Add(strings.Repeat("a.", 500) + "=1")
	f.Fuzz(func(t *testing.T, text string) {
		q, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		n, err := parseForm(q)
		if err != nil {
			return
		}
		var in importInput
		for _, p := range []Protocol{EC2, Query} {
			err = decodeForm(n, &in, p)
		}
		if err != nil && code(err) != "UnknownParameter" && code(err) != "InvalidParameterValue" {
			t.Fatal(err)
		}
		// Whatever came in can be written, and is XML.
		out := &xmlOutput{ImageId: in.Description, Progress: in.BootMode, When: &testNow}
		for _, d := range in.DiskContainers {
			out.Details = append(out.Details, xmlDetail{Format: d.Format})
		}
		b, err := encodeXML(&service{Service: Service{Name: "ec2", Protocol: EC2, Version: "1"}}, "Op", "r", out)
		if err != nil {
			t.Fatal(err)
		}
		for d := xml.NewDecoder(strings.NewReader(string(b))); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%v: %s", err, b)
			}
		}
	})
}
