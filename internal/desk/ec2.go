package desk

import "time"

// EC2 is the door to the EC2 operations that the BYOL process uses: importtask.go, machineimage.go, snapshot.go, encryption.go. Its
// methods are the operations. The types are ours, in the SDK's manner: its EC2 package is 22 MB of source.
type EC2 struct{ d *Desk }

// EC2 is the desk's EC2 door.
func (d *Desk) EC2() *EC2 { return &EC2{d} }

// The shapes below carry two tags: query, the name in a request (lists count .1, .2, …), and xml, the element in an answer.

// Filter narrows a list: an item must match one of the values of every filter.
type Filter struct {
	Name   *string  `query:"Name"`
	Values []string `query:"Value"`
}

// EC2Tag is a tag.
type EC2Tag struct {
	Key   *string `query:"Key" xml:"key"`
	Value *string `query:"Value" xml:"value"`
}

// TagSpecification is the tags for a resource that a request makes.
type TagSpecification struct {
	ResourceType *string  `query:"ResourceType"`
	Tags         []EC2Tag `query:"Tag"`
}

// UserBucket says where an upload is.
type UserBucket struct {
	S3Bucket *string `query:"S3Bucket" xml:"s3Bucket,omitempty"`
	S3Key    *string `query:"S3Key" xml:"s3Key,omitempty"`
}

// DiskContainer is one disk of an import.
type DiskContainer struct {
	Description *string     `query:"Description"`
	DeviceName  *string     `query:"DeviceName"`
	Format      *string     `query:"Format"`
	SnapshotID  *string     `query:"SnapshotId"`
	URL         *string     `query:"Url"`
	UserBucket  *UserBucket `query:"UserBucket"`
}

// ClientData is what a client tells about its upload. It is for information, and Berth does nothing with it.
type ClientData struct {
	Comment     *string    `query:"Comment"`
	UploadEnd   *time.Time `query:"UploadEnd"`
	UploadSize  *float64   `query:"UploadSize"` // GiB
	UploadStart *time.Time `query:"UploadStart"`
}

// SnapshotDetail tells about the disk of an ImportImage task.
type SnapshotDetail struct {
	Description   *string     `xml:"description,omitempty"`
	DeviceName    *string     `xml:"deviceName,omitempty"`
	DiskImageSize *float64    `xml:"diskImageSize,omitempty"` // bytes
	Format        *string     `xml:"format,omitempty"`
	Progress      *string     `xml:"progress,omitempty"`
	SnapshotID    *string     `xml:"snapshotId,omitempty"`
	Status        *string     `xml:"status,omitempty"`
	StatusMessage *string     `xml:"statusMessage,omitempty"`
	URL           *string     `xml:"url,omitempty"`
	UserBucket    *UserBucket `xml:"userBucket,omitempty"`
}

// SnapshotTaskDetail tells about the disk of an ImportSnapshot task.
type SnapshotTaskDetail struct {
	Description   *string     `xml:"description,omitempty"`
	DiskImageSize *float64    `xml:"diskImageSize,omitempty"` // bytes
	Encrypted     bool        `xml:"encrypted"`
	Format        *string     `xml:"format,omitempty"`
	Progress      *string     `xml:"progress,omitempty"`
	SnapshotID    *string     `xml:"snapshotId,omitempty"`
	Status        *string     `xml:"status,omitempty"`
	StatusMessage *string     `xml:"statusMessage,omitempty"`
	URL           *string     `xml:"url,omitempty"`
	UserBucket    *UserBucket `xml:"userBucket,omitempty"`
}

// ImportImageTask is an ImportImage task as described.
type ImportImageTask struct {
	Architecture    *string          `xml:"architecture,omitempty"`
	BootMode        *string          `xml:"bootMode,omitempty"`
	Description     *string          `xml:"description,omitempty"`
	Encrypted       bool             `xml:"encrypted"`
	Hypervisor      *string          `xml:"hypervisor,omitempty"`
	ImageID         *string          `xml:"imageId,omitempty"`
	ImportTaskID    *string          `xml:"importTaskId,omitempty"`
	LicenseType     *string          `xml:"licenseType,omitempty"`
	Platform        *string          `xml:"platform,omitempty"`
	Progress        *string          `xml:"progress,omitempty"`
	SnapshotDetails []SnapshotDetail `xml:"snapshotDetailSet>item,omitempty"`
	Status          *string          `xml:"status,omitempty"`
	StatusMessage   *string          `xml:"statusMessage,omitempty"`
	Tags            []EC2Tag         `xml:"tagSet>item,omitempty"`
	UsageOperation  *string          `xml:"usageOperation,omitempty"`
}

// ImportImageInput asks for an import.
type ImportImageInput struct {
	Architecture      *string            `query:"Architecture"`
	BootMode          *string            `query:"BootMode"`
	ClientData        *ClientData        `query:"ClientData"`
	ClientToken       *string            `query:"ClientToken"`
	Description       *string            `query:"Description"`
	DiskContainers    []DiskContainer    `query:"DiskContainer"`
	DryRun            *bool              `query:"DryRun"`
	Encrypted         *bool              `query:"Encrypted"`
	KmsKeyID          *string            `query:"KmsKeyId"`
	Hypervisor        *string            `query:"Hypervisor"`
	LicenseType       *string            `query:"LicenseType"`
	Platform          *string            `query:"Platform"`
	RoleName          *string            `query:"RoleName"`
	TagSpecifications []TagSpecification `query:"TagSpecification"`
	UsageOperation    *string            `query:"UsageOperation"`
}

// ImportImageOutput is the task that an import became.
type ImportImageOutput struct{ ImportImageTask }

// DescribeImportImageTasksInput selects tasks.
type DescribeImportImageTasksInput struct {
	DryRun        *bool    `query:"DryRun"`
	Filters       []Filter `query:"Filters"`
	ImportTaskIDs []string `query:"ImportTaskId"`
	MaxResults    *int32   `query:"MaxResults"`
	NextToken     *string  `query:"NextToken"`
}

// DescribeImportImageTasksOutput lists tasks.
type DescribeImportImageTasksOutput struct {
	ImportImageTasks []ImportImageTask `xml:"importImageTaskSet>item"`
	NextToken        *string           `xml:"nextToken,omitempty"`
}

// ImportSnapshotInput asks for a disk to become a snapshot.
type ImportSnapshotInput struct {
	ClientData        *ClientData        `query:"ClientData"`
	ClientToken       *string            `query:"ClientToken"`
	Description       *string            `query:"Description"`
	DiskContainer     *DiskContainer     `query:"DiskContainer"`
	DryRun            *bool              `query:"DryRun"`
	Encrypted         *bool              `query:"Encrypted"`
	KmsKeyID          *string            `query:"KmsKeyId"`
	RoleName          *string            `query:"RoleName"`
	TagSpecifications []TagSpecification `query:"TagSpecification"`
}

// ImportSnapshotTask is an ImportSnapshot task.
type ImportSnapshotTask struct {
	Description        *string             `xml:"description,omitempty"`
	ImportTaskID       *string             `xml:"importTaskId,omitempty"`
	SnapshotTaskDetail *SnapshotTaskDetail `xml:"snapshotTaskDetail,omitempty"`
	Tags               []EC2Tag            `xml:"tagSet>item,omitempty"`
}

// ImportSnapshotOutput is the task that it became.
type ImportSnapshotOutput struct{ ImportSnapshotTask }

// DescribeImportSnapshotTasksInput selects tasks.
type DescribeImportSnapshotTasksInput struct {
	DryRun        *bool    `query:"DryRun"`
	Filters       []Filter `query:"Filters"`
	ImportTaskIDs []string `query:"ImportTaskId"`
	MaxResults    *int32   `query:"MaxResults"`
	NextToken     *string  `query:"NextToken"`
}

// DescribeImportSnapshotTasksOutput lists tasks.
type DescribeImportSnapshotTasksOutput struct {
	ImportSnapshotTasks []ImportSnapshotTask `xml:"importSnapshotTaskSet>item"`
	NextToken           *string              `xml:"nextToken,omitempty"`
}

// CancelImportTaskInput names the task.
type CancelImportTaskInput struct {
	CancelReason *string `query:"CancelReason"`
	DryRun       *bool   `query:"DryRun"`
	ImportTaskID *string `query:"ImportTaskId"`
}

// CancelImportTaskOutput tells the task's state before and now.
type CancelImportTaskOutput struct {
	ImportTaskID  *string `xml:"importTaskId,omitempty"`
	PreviousState *string `xml:"previousState,omitempty"`
	State         *string `xml:"state,omitempty"`
}

// EBSBlockDevice is a volume of an image.
type EBSBlockDevice struct {
	DeleteOnTermination bool    `xml:"deleteOnTermination"`
	SnapshotID          *string `xml:"snapshotId,omitempty"`
	VolumeSize          int64   `xml:"volumeSize"` // GiB
	VolumeType          *string `xml:"volumeType,omitempty"`
	Encrypted           bool    `xml:"encrypted"`
}

// BlockDeviceMapping is a device of an image.
type BlockDeviceMapping struct {
	DeviceName *string         `xml:"deviceName,omitempty"`
	EBS        *EBSBlockDevice `xml:"ebs,omitempty"`
}

// EC2Image is an AMI as described.
type EC2Image struct {
	ImageID             *string              `xml:"imageId,omitempty"`
	ImageLocation       *string              `xml:"imageLocation,omitempty"`
	ImageState          *string              `xml:"imageState,omitempty"`
	ImageOwnerID        *string              `xml:"imageOwnerId,omitempty"`
	CreationDate        *time.Time           `xml:"creationDate,omitempty"`
	IsPublic            bool                 `xml:"isPublic"`
	Architecture        *string              `xml:"architecture,omitempty"`
	ImageType           *string              `xml:"imageType,omitempty"`
	Platform            *string              `xml:"platform,omitempty"`
	PlatformDetails     *string              `xml:"platformDetails,omitempty"`
	UsageOperation      *string              `xml:"usageOperation,omitempty"`
	BlockDeviceMappings []BlockDeviceMapping `xml:"blockDeviceMapping>item"`
	Description         *string              `xml:"description,omitempty"`
	EnaSupport          bool                 `xml:"enaSupport"`
	Hypervisor          *string              `xml:"hypervisor,omitempty"`
	Name                *string              `xml:"name,omitempty"`
	RootDeviceName      *string              `xml:"rootDeviceName,omitempty"`
	RootDeviceType      *string              `xml:"rootDeviceType,omitempty"`
	VirtualizationType  *string              `xml:"virtualizationType,omitempty"`
	BootMode            *string              `xml:"bootMode,omitempty"`
	Tags                []EC2Tag             `xml:"tagSet>item,omitempty"`
}

// DescribeImagesInput selects images.
type DescribeImagesInput struct {
	DryRun            *bool    `query:"DryRun"`
	ExecutableUsers   []string `query:"ExecutableBy"`
	Filters           []Filter `query:"Filter"`
	ImageIDs          []string `query:"ImageId"`
	IncludeDeprecated *bool    `query:"IncludeDeprecated"`
	IncludeDisabled   *bool    `query:"IncludeDisabled"`
	MaxResults        *int32   `query:"MaxResults"`
	NextToken         *string  `query:"NextToken"`
	Owners            []string `query:"Owner"`
}

// DescribeImagesOutput lists images.
type DescribeImagesOutput struct {
	Images    []EC2Image `xml:"imagesSet>item"`
	NextToken *string    `xml:"nextToken,omitempty"`
}

// DescribeSnapshotsInput asks for snapshots.
type DescribeSnapshotsInput struct {
	DryRun              *bool    `query:"DryRun"`
	Filters             []Filter `query:"Filter"`
	MaxResults          *int32   `query:"MaxResults"`
	NextToken           *string  `query:"NextToken"`
	OwnerIDs            []string `query:"Owner"`
	RestorableByUserIDs []string `query:"RestorableBy"`
	SnapshotIDs         []string `query:"SnapshotId"`
}

// EC2Snapshot is an imported disk as EC2 shows it.
type EC2Snapshot struct {
	CompletionTime *time.Time `xml:"completionTime,omitempty"`
	Description    *string    `xml:"description,omitempty"`
	Encrypted      bool       `xml:"encrypted"`
	OwnerID        *string    `xml:"ownerId"`
	Progress       *string    `xml:"progress"`
	SnapshotID     *string    `xml:"snapshotId"`
	StartTime      *time.Time `xml:"startTime"`
	Status         *string    `xml:"status"`
	StorageTier    *string    `xml:"storageTier"`
	VolumeID       *string    `xml:"volumeId"`
	VolumeSize     int64      `xml:"volumeSize"` // GiB
}

// DescribeSnapshotsOutput lists snapshots.
type DescribeSnapshotsOutput struct {
	NextToken *string       `xml:"nextToken,omitempty"`
	Snapshots []EC2Snapshot `xml:"snapshotSet>item"`
}

// LaunchPermission is an account, or the group "all", that may use an image.
type LaunchPermission struct {
	UserID                *string `query:"UserId" xml:"userId,omitempty"`
	Group                 *string `query:"Group" xml:"group,omitempty"`
	OrganizationArn       *string `query:"OrganizationArn" xml:"organizationArn,omitempty"`
	OrganizationalUnitArn *string `query:"OrganizationalUnitArn" xml:"organizationalUnitArn,omitempty"`
}

// LaunchPermissionModifications adds and removes permissions.
type LaunchPermissionModifications struct {
	Add    []LaunchPermission `query:"Add"`
	Remove []LaunchPermission `query:"Remove"`
}

// AttributeValue wraps a text.
type AttributeValue struct {
	Value *string `query:"Value" xml:"value,omitempty"`
}

// ModifyImageAttributeInput changes who may use an image, or its description.
type ModifyImageAttributeInput struct {
	Attribute        *string                        `query:"Attribute"`
	Description      *AttributeValue                `query:"Description"`
	DryRun           *bool                          `query:"DryRun"`
	ImageID          *string                        `query:"ImageId"`
	LaunchPermission *LaunchPermissionModifications `query:"LaunchPermission"`
	OperationType    *string                        `query:"OperationType"`
	UserGroups       []string                       `query:"UserGroup"`
	UserIDs          []string                       `query:"UserId"`
	Value            *string                        `query:"Value"`
}

// ModifyImageAttributeOutput says that it is done.
type ModifyImageAttributeOutput struct {
	Return bool `xml:"return"`
}

// DescribeImageAttributeInput names an attribute: description, launchPermission, blockDeviceMapping, bootMode.
type DescribeImageAttributeInput struct {
	Attribute *string `query:"Attribute"`
	DryRun    *bool   `query:"DryRun"`
	ImageID   *string `query:"ImageId"`
}

// DescribeImageAttributeOutput is that attribute.
type DescribeImageAttributeOutput struct {
	BlockDeviceMappings []BlockDeviceMapping `xml:"blockDeviceMapping>item,omitempty"`
	BootMode            *AttributeValue      `xml:"bootMode,omitempty"`
	Description         *AttributeValue      `xml:"description,omitempty"`
	ImageID             *string              `xml:"imageId,omitempty"`
	LaunchPermissions   []LaunchPermission   `xml:"launchPermission>item,omitempty"`
}

// DeregisterImageInput names an image, and whether its snapshots shall go too.
type DeregisterImageInput struct {
	DeleteAssociatedSnapshots *bool   `query:"DeleteAssociatedSnapshots"`
	DryRun                    *bool   `query:"DryRun"`
	ImageID                   *string `query:"ImageId"`
}

// DeleteSnapshotResult tells what became of a snapshot.
type DeleteSnapshotResult struct {
	SnapshotID *string `xml:"snapshotId,omitempty"`
	ReturnCode *string `xml:"returnCode,omitempty"`
}

// DeregisterImageOutput says that it is done.
type DeregisterImageOutput struct {
	Return                bool                   `xml:"return"`
	DeleteSnapshotResults []DeleteSnapshotResult `xml:"deleteSnapshotResultSet>item,omitempty"`
}

// GetEbsEncryptionByDefaultInput asks whether new volumes are encrypted.
type GetEbsEncryptionByDefaultInput struct {
	DryRun *bool `query:"DryRun"`
}

// GetEbsEncryptionByDefaultOutput tells it.
type GetEbsEncryptionByDefaultOutput struct{ EBSEncryption }

// EnableEbsEncryptionByDefaultInput switches it on.
type EnableEbsEncryptionByDefaultInput struct {
	DryRun *bool `query:"DryRun"`
}

// EnableEbsEncryptionByDefaultOutput tells what holds now.
type EnableEbsEncryptionByDefaultOutput struct{ EBSEncryption }

// DisableEbsEncryptionByDefaultInput switches it off.
type DisableEbsEncryptionByDefaultInput struct {
	DryRun *bool `query:"DryRun"`
}

// DisableEbsEncryptionByDefaultOutput tells what holds now.
type DisableEbsEncryptionByDefaultOutput struct{ EBSEncryption }

// EBSEncryption tells whether new volumes are encrypted by default.
type EBSEncryption struct {
	EbsEncryptionByDefault bool `xml:"ebsEncryptionByDefault"`
}
