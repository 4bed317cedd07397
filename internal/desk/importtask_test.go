package desk

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"berth/internal/compute/memory"
	"berth/internal/phony"
)

func fromBucket(key string) []DiskContainer {
	return []DiskContainer{{UserBucket: &UserBucket{S3Bucket: aws.String("b"), S3Key: aws.String(key)}}}
}

func TestCancelAtEveryStage(t *testing.T) {
	var now atomic.Pointer[func(step string, done bool)]
	f := newFixture(t, func(c *Config) {
		c.StepHook = func(_, step string, done bool) error {
			if do := now.Load(); do != nil {
				(*do)(step, done)
			}
			return nil
		}
	})
	key := f.upload(sample(t, phony.Base, "qcow2"))
	for _, st := range importDisk.steps {
		for _, done := range []bool{false, true} {
			at := place{importDisk.name, st.name, done}
			t.Run(at.String(), func(t *testing.T) {
				task := make(chan string, 1)
				answer := make(chan error, 1)
				do := func(step string, isDone bool) {
					if step == at.step && isDone == at.done {
						_, err := f.EC2().CancelImportTask(t.Context(), &CancelImportTaskInput{ImportTaskID: aws.String(<-task), CancelReason: aws.String("not wanted")})
						answer <- err
					}
				}
				now.Store(&do)
				out, err := f.EC2().ImportImage(callerContext(), &ImportImageInput{DiskContainers: fromBucket(key)})
				if err != nil {
					t.Fatal(err)
				}
				task <- *out.ImportTaskID
				late := at.step == "finish" || at.step == "register" && at.done
				if err := <-answer; late {
					refusal(t, err, "IncorrectState", "cannot be cancelled")
				} else if err != nil {
					t.Error(err)
				}
				ended := f.ended(*out.ImportTaskID)
				if want := map[bool]string{true: taskCompleted, false: taskDeleted}[late]; *ended.Status != want {
					t.Errorf("the task is %s, want %s", *ended.Status, want)
				}
				if !late && aws.ToString(ended.StatusMessage) != "not wanted" {
					t.Errorf("its message is %q", aws.ToString(ended.StatusMessage))
				}
				if s := f.unsound(t, memory.NewHost()); s != "" {
					t.Error(s)
				}
			})
		}
	}
}

func TestImportOfASnapshot(t *testing.T) {
	f := newFixture(t)
	first := f.imported(f.upload(sample(t, phony.Base, "qcow2")))
	snapshot := *first.SnapshotDetails[0].SnapshotID
	of := func(id string) []DiskContainer { return []DiskContainer{{SnapshotID: aws.String(id)}} }
	for _, id := range []string{"snap-0123456789abcdef0", "../" + snapshot, ""} {
		_, err := f.EC2().ImportImage(callerContext(), &ImportImageInput{DiskContainers: of(id)})
		refusal(t, err, "InvalidSnapshot.NotFound", "does not exist")
	}
	in := of(snapshot)
	in[0].Format = aws.String("VMDK") // what it was before it was a snapshot, say
	out, err := f.EC2().ImportImage(callerContext(), &ImportImageInput{DiskContainers: in})
	if err != nil {
		t.Fatal(err)
	}
	second := f.ended(*out.ImportTaskID)
	if *second.Status != taskCompleted || *second.SnapshotDetails[0].SnapshotID == snapshot {
		t.Fatalf("%s: %s, of %s", *second.Status, aws.ToString(second.StatusMessage), snapshot)
	}
	images, err := f.EC2().DescribeImages(t.Context(), &DescribeImagesInput{ImageIDs: []string{*second.ImageID}})
	if err != nil || !strings.HasSuffix(*images.Images[0].Description, " "+snapshot) {
		t.Errorf("images: %+v, %v", images, err)
	}
	if s := f.unsound(t, memory.NewHost()); s != "" {
		t.Error(s)
	}
	open, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		if file, err := os.Readlink(fd); err == nil && strings.HasPrefix(file, f.file("imports")) {
			t.Errorf("%s is still open", file)
		}
	}
}

func TestClientToken(t *testing.T) {
	f := newFixture(t)
	key := f.upload(sample(t, phony.Base, "qcow2"))
	with := func(change func(*ImportImageInput)) *ImportImageInput {
		in := &ImportImageInput{ClientToken: aws.String("once"), DiskContainers: fromBucket(key), Hypervisor: aws.String("xen"), TagSpecifications: tagged("a", "1", "b", "2")}
		if change != nil {
			change(in)
		}
		return in
	}
	in := with(nil)
	tasks := make(chan string, 4)
	for range cap(tasks) {
		go func() {
			out, err := f.EC2().ImportImage(callerContext(), in)
			if err != nil {
				t.Error(err)
				tasks <- ""
				return
			}
			tasks <- *out.ImportTaskID
		}()
	}
	first := <-tasks
	for range cap(tasks) - 1 {
		if task := <-tasks; task != first {
			t.Errorf("one token, the tasks %s and %s", first, task)
		}
	}
	for name, change := range map[string]func(in *ImportImageInput){
		"source":        func(in *ImportImageInput) { in.DiskContainers = fromBucket("other") },
		"hypervisor":    func(in *ImportImageInput) { in.Hypervisor = nil },
		"tag's value":   func(in *ImportImageInput) { in.TagSpecifications = tagged("a", "1", "b", "3") },
		"tag's key":     func(in *ImportImageInput) { in.TagSpecifications = tagged("a", "1", "c", "2") },
		"fewer tags":    func(in *ImportImageInput) { in.TagSpecifications = tagged("a", "1") },
		"description":   func(in *ImportImageInput) { in.Description = aws.String("of mine") },
		"other licence": func(in *ImportImageInput) { in.LicenseType = aws.String(licenseBYOL) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.EC2().ImportImage(callerContext(), with(change))
			refusal(t, err, "IdempotentParameterMismatch", "client token")
		})
	}
	again, err := f.EC2().ImportImage(callerContext(), with(func(in *ImportImageInput) { in.TagSpecifications = tagged("b", "2", "a", "1") }))
	if err != nil || *again.ImportTaskID != first {
		t.Errorf("the same tags in another order: %+v, %v", again, err)
	}
	f.ended(first)
}

// What EC2's model, and its pages on tags and client tokens, do not allow is refused in EC2's codes before there is a task.
func TestRequestsThatEC2Refuses(t *testing.T) {
	f := newFixture(t)
	key := f.upload(sample(t, phony.Base, "qcow2"))
	var many []string
	for i := range maxTags + 1 {
		many = append(many, fmt.Sprint("k", i), "v")
	}
	for name, c := range map[string]struct {
		change     func(in *ImportImageInput)
		code, says string
	}{
		"long token":      {func(in *ImportImageInput) { in.ClientToken = aws.String(strings.Repeat("x", 65)) }, "InvalidParameterValue", "64 ASCII"},
		"token in German": {func(in *ImportImageInput) { in.ClientToken = aws.String("für") }, "InvalidParameterValue", "64 ASCII"},
		"empty token":     {func(in *ImportImageInput) { in.ClientToken = aws.String("") }, "InvalidParameterValue", "64 ASCII"},
		"hypervisor":      {func(in *ImportImageInput) { in.Hypervisor = aws.String("vmware") }, "InvalidParameter", "Hypervisor vmware"},
		"reserved tag":    {func(in *ImportImageInput) { in.TagSpecifications = tagged("AWS:x", "v") }, "InvalidParameterValue", "reserved"},
		"tag twice":       {func(in *ImportImageInput) { in.TagSpecifications = tagged("a", "1", "a", "2") }, "InvalidParameterValue", "Duplicate tag key 'a'"},
		"tag of nothing":  {func(in *ImportImageInput) { in.TagSpecifications = tagged("", "v") }, "InvalidParameterValue", "from 1 to 127"},
		"long tag":        {func(in *ImportImageInput) { in.TagSpecifications = tagged("k", strings.Repeat("v", 257)) }, "InvalidParameterValue", "up to 256"},
		"many tags":       {func(in *ImportImageInput) { in.TagSpecifications = tagged(many...) }, "TagLimitExceeded", "at most 50"},
	} {
		t.Run(name, func(t *testing.T) {
			in := &ImportImageInput{DiskContainers: fromBucket(key)}
			c.change(in)
			_, err := f.EC2().ImportImage(callerContext(), in)
			refusal(t, err, c.code, c.says)
		})
	}
	if out, err := f.EC2().DescribeImportImageTasks(t.Context(), &DescribeImportImageTasksInput{}); err != nil || len(out.ImportImageTasks) != 0 {
		t.Errorf("tasks: %+v, %v", out, err)
	}
	from := fromBucket(key)[0]
	from.Description = aws.String("of the disk")
	out, err := f.EC2().ImportSnapshot(callerContext(), &ImportSnapshotInput{DiskContainer: &from, Description: aws.String("of the task")})
	if err != nil || *out.Description != "of the task" || *out.SnapshotTaskDetail.Description != "of the disk" {
		t.Errorf("descriptions: %+v, %v", out, err)
	}
}

// tagged are the tags of an import's task: keys and values in turn.
func tagged(pairs ...string) []TagSpecification {
	s := TagSpecification{ResourceType: aws.String("import-image-task")}
	for i := 0; i < len(pairs); i += 2 {
		s.Tags = append(s.Tags, EC2Tag{Key: &pairs[i], Value: &pairs[i+1]})
	}
	return []TagSpecification{s}
}

// A snapshot's task says what it waits for in its only message; once it is over that is gone.
func TestASnapshotsTaskSaysWhatItWaitsFor(t *testing.T) {
	f := newFixture(t)
	key := f.upload(sample(t, phony.Base, "qcow2"))
	for range heavyStages {
		f.heavy <- struct{}{}
	}
	out, err := f.EC2().ImportSnapshot(callerContext(), &ImportSnapshotInput{DiskContainer: &fromBucket(key)[0]})
	if err != nil {
		t.Fatal(err)
	}
	detail := func() *SnapshotTaskDetail {
		t.Helper()
		now, err := f.EC2().DescribeImportSnapshotTasks(t.Context(), &DescribeImportSnapshotTasksInput{ImportTaskIDs: []string{*out.ImportTaskID}})
		if err != nil {
			t.Fatal(err)
		}
		return now.ImportSnapshotTasks[0].SnapshotTaskDetail
	}
	until(t, "its turn to be waited for", func() bool {
		return aws.ToString(detail().StatusMessage) == "pending [other imports, for its turn]"
	})
	for range heavyStages {
		<-f.heavy
	}
	until(t, "its end", func() bool { return *detail().Status != taskActive })
	if d := detail(); *d.Status != taskCompleted || d.StatusMessage != nil {
		t.Errorf("%s: %q", *d.Status, aws.ToString(d.StatusMessage))
	}
}

func TestFiltersThatDoNotExist(t *testing.T) {
	f := newFixture(t)
	bad := []Filter{{Name: aws.String("colour"), Values: []string{"red"}}}
	_, err := f.EC2().DescribeImages(t.Context(), &DescribeImagesInput{Filters: bad})
	refusal(t, err, "InvalidParameterValue", "'colour'")
	_, err = f.EC2().DescribeImportImageTasks(t.Context(), &DescribeImportImageTasksInput{Filters: bad})
	refusal(t, err, "InvalidParameterValue", "'colour'")
}

// Pages, states and ids that could be and are not.
func TestTasksThatAreAskedForInParts(t *testing.T) {
	f := newFixture(t)
	key := f.upload(sample(t, phony.Base, "qcow2"))
	older := *f.imported(key).ImportTaskID
	newer := *f.imported(key).ImportTaskID
	ask := func(in *DescribeImportImageTasksInput) (ids []string, next *string) {
		t.Helper()
		out, err := f.EC2().DescribeImportImageTasks(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range out.ImportImageTasks {
			ids = append(ids, *x.ImportTaskID)
		}
		return ids, out.NextToken
	}
	first, next := ask(&DescribeImportImageTasksInput{MaxResults: aws.Int32(1)})
	if !slices.Equal(first, []string{newer}) || next == nil {
		t.Fatalf("the first page: %q, %v", first, next)
	}
	if second, next := ask(&DescribeImportImageTasksInput{MaxResults: aws.Int32(1), NextToken: next}); !slices.Equal(second, []string{older}) || next != nil {
		t.Errorf("the second page: %q, %v", second, next)
	}
	if ids, next := ask(&DescribeImportImageTasksInput{MaxResults: aws.Int32(1001)}); len(ids) != 2 || next != nil {
		t.Errorf("a page of 1001: %q, %v", ids, next)
	}
	for _, n := range []int32{0, -1} {
		_, err := f.EC2().DescribeImportImageTasks(t.Context(), &DescribeImportImageTasksInput{MaxResults: &n})
		refusal(t, err, "InvalidParameterValue", "for parameter maxResults is invalid")
		_, err = f.EC2().DescribeImportSnapshotTasks(t.Context(), &DescribeImportSnapshotTasksInput{MaxResults: &n})
		refusal(t, err, "InvalidParameterValue", "for parameter maxResults is invalid")
		_, err = f.EC2().DescribeImages(t.Context(), &DescribeImagesInput{MaxResults: &n})
		refusal(t, err, "InvalidParameterValue", "for parameter maxResults is invalid")
	}
	in := func(states ...string) []Filter { return []Filter{{Name: aws.String("task-state"), Values: states}} }
	if ids, _ := ask(&DescribeImportImageTasksInput{Filters: in("finished", "")}); len(ids) != 0 {
		t.Errorf("in states that do not exist: %q", ids)
	}
	if ids, _ := ask(&DescribeImportImageTasksInput{Filters: in("finished", taskCompleted)}); len(ids) != 2 {
		t.Errorf("completed: %q", ids)
	}
	for _, id := range []string{"import-ami-0123456789abcdef0", "import-ami-x"} {
		_, err := f.EC2().DescribeImportImageTasks(t.Context(), &DescribeImportImageTasksInput{ImportTaskIDs: []string{older, id}})
		refusal(t, err, "InvalidConversionTaskId.Malformed", id)
		_, err = f.EC2().CancelImportTask(t.Context(), &CancelImportTaskInput{ImportTaskID: &id})
		refusal(t, err, "InvalidConversionTaskId.Malformed", id)
	}
}

// notes are what is said of the disks of all imports: what was left out.
func (d *Desk) notes(t *testing.T) (notes []string) {
	t.Helper()
	if err := d.db.NewSelect().Model((*importedDisk)(nil)).Column("note").Order("task_id", "number").Scan(t.Context(), &notes); err != nil {
		t.Fatal(err)
	}
	return notes
}

// The service is killed when a disk has been made and nothing is written down of it: what was left out is told all the same.
func TestWhatWasLeftOutOutlivesACrash(t *testing.T) {
	s := scenarioOf(t, &importDisk)
	base, x := s.prepared(t)
	var told [][]string
	for _, crashes := range []bool{false, true} {
		dir := copied(t, base)
		if crashes {
			crash{Dir: dir, Flow: importDisk.name, Step: unkept, IDs: x}.happens(t)
		}
		host := memory.NewHost()
		d, err := opened(dir, "", host, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if !crashes {
			if err := s.trigger(callerContext(), d, x); err != nil {
				t.Fatal(err)
			}
		}
		s.settles(t, d, host, x, s.done)
		told = append(told, d.notes(t))
	}
	if len(told[0]) != 1 || !strings.Contains(told[0][0], "that Windows does not need were left out") || !slices.Equal(told[0], told[1]) {
		t.Errorf("undisturbed: %q; after the crash: %q", told[0], told[1])
	}
}
