package desk

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"

	"berth/internal/awsapi"
)

// asked keeps those of an account's records whose IDs are asked for, or all if none is. missing refuses an ID that no record has.
func asked[T any](rs []T, ids []string, id func(r T) string, missing func(id string) error) ([]T, error) {
	for _, want := range ids {
		if !slices.ContainsFunc(rs, func(r T) bool { return id(r) == want }) {
			return nil, missing(want)
		}
	}
	if len(ids) == 0 {
		return rs, nil
	}
	return slices.DeleteFunc(rs, func(r T) bool { return !slices.Contains(ids, id(r)) }), nil
}

// filterOf is what a filter of an EC2 operation looks at in an item, by the filter's name; nil when there is no such filter.
type filterOf[T any] func(name string) func(item *T) []string

// knownFilters refuses filters that there are not.
func knownFilters[T any](of filterOf[T], filters []Filter) error {
	for _, f := range filters {
		if name := aws.ToString(f.Name); of(name) == nil {
			return refused("InvalidParameterValue", "The filter '%s' is invalid", name)
		}
	}
	return nil
}

// passes reports whether an item has, for each filter, one of its values, in which * and ? are wildcards. The filters are known.
func passes[T any](of filterOf[T], item *T, filters []Filter) bool {
	for _, f := range filters {
		if !slices.ContainsFunc(of(aws.ToString(f.Name))(item), func(v string) bool {
			return slices.ContainsFunc(f.Values, func(p string) bool { return awsapi.Wildcard(p, v) })
		}) {
			return false
		}
	}
	return true
}

// had is a text that an item may have.
func had(text *string) []string {
	if text == nil {
		return nil
	}
	return []string{*text}
}

// ec2Page cuts a page of what was asked for; all when nothing was. EC2's model gives the operations that are here no bounds for
// MaxResults: one item is the least that makes sense, and more than 1000 are no page of EC2's.
func ec2Page[T any](all []T, limit *int32, token *string, key func(T) string) ([]T, *string, error) {
	const most = 1000
	if limit != nil && *limit < 1 {
		return nil, nil, refused("InvalidParameterValue", "Value ( %d ) for parameter maxResults is invalid. Expecting a value greater than or equal to 1.", *limit)
	}
	if limit == nil && token == nil {
		return all, nil, nil
	}
	page, next, err := paginate(all, aws.ToInt32(limit), most, token, key)
	if err != nil {
		return nil, nil, refused("InvalidParameterValue", "The nextToken is not valid.")
	}
	return page, next, nil
}
