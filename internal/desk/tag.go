package desk

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/uptrace/bun"
)

// tagRecord is a tag of any resource, by its id.
type tagRecord struct {
	bun.BaseModel `bun:"table:tags"`
	ResourceID    string `bun:"resource_id,pk"`
	Key           string `bun:"key,pk"`
	Value         string `bun:"value"`
}

// maxTags is how many tags a resource may have (facts §7).
const maxTags = 50

// putTags gives a resource tags, over those of the same key that it has.
func putTags(ctx context.Context, db bun.IDB, resource string, tags []EC2Tag) error {
	if len(tags) > maxTags {
		return invalid("A resource can have at most %d tags; %d were given.", maxTags, len(tags))
	}
	for _, t := range tags {
		if strings.HasPrefix(strings.ToLower(aws.ToString(t.Key)), "aws:") {
			return invalid("Tag keys that begin with aws: are reserved; %q was given.", aws.ToString(t.Key))
		}
		r := &tagRecord{ResourceID: resource, Key: aws.ToString(t.Key), Value: aws.ToString(t.Value)}
		if _, err := db.NewInsert().Model(r).On("CONFLICT (resource_id, key) DO UPDATE SET value = EXCLUDED.value").Exec(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
	}
	return nil
}

// ec2Tags are a resource's tags by key, as EC2 shows them.
func (d *Desk) ec2Tags(ctx context.Context, resource string) ([]EC2Tag, error) {
	var rs []tagRecord
	if err := d.db.NewSelect().Model(&rs).Where("resource_id = ?", resource).Order("key").Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	var out []EC2Tag
	for _, r := range rs {
		out = append(out, EC2Tag{Key: aws.String(r.Key), Value: aws.String(r.Value)})
	}
	return out, nil
}

// tagsOf are a WorkSpaces request's tags.
func tagsOf(ts []types.Tag) []EC2Tag {
	var out []EC2Tag
	for _, t := range ts {
		out = append(out, EC2Tag{Key: t.Key, Value: t.Value})
	}
	return out
}

// tagsFor are the tags of an EC2 request that are meant for one type of resource.
func tagsFor(specs []TagSpecification, resourceType string) []EC2Tag {
	var out []EC2Tag
	for _, s := range specs {
		if aws.ToString(s.ResourceType) == resourceType {
			out = append(out, s.Tags...)
		}
	}
	return out
}
