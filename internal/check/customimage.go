package check

// customImageChecks are the codes of another checker of Amazon's: the one that looks at a WorkSpace before a custom image is made
// of it (CreateWorkspaceImage). The service answers with them, so that they are here, with their rules; no imported machine is
// judged by them (facts §4.4).
var customImageChecks = []Check{
	custom("AdditionalDrivesPresent", "The WorkSpace has no volumes but C: and D:",
		"Take further volumes out of the WorkSpace:", "  diskmgmt.msc"),
	custom("WindowsUpdatesRequired", "No update and no restart is pending",
		"Install all updates, and restart:", "  start ms-settings:windowsupdate", "  shutdown /r /t 0"),
	custom("SysPrepFileMissing", "Sysprep's answer file is there and not empty",
		"Look for the answer file of the launch agent that is installed: Sysprep2008.xml of EC2Config, Unattend.xml of EC2Launch. Install the agent again where it is missing:",
		`  dir "C:\ProgramData\Amazon\EC2-Windows\Launch\Sysprep\Unattend.xml"`),
	custom("UserProfileMissing", `The user's profile is in D:\Users`,
		`Rebuild the WorkSpace, which brings D:\Users\<user> back:`, "  aws workspaces rebuild-workspaces --rebuild-workspace-requests WorkspaceId=<id>"),
	custom("InsufficientDiskSpace", "More than 2 GB are free on C: (Windows 7: 12 GB, and the profile takes less than 10 GB)",
		"Win space back:", "  cleanmgr /d C:"),
	custom("EnvironmentVariablesPathMissingEntries", `The machine's PATH has C:\Windows\System32 and C:\Windows\System32\WindowsPowerShell\v1.0`,
		"Add what is missing: sysdm.cpl > Advanced > Environment Variables > System variables > Path > Edit. Then sign in anew:", "  sysdm.cpl"),
	custom("DomainAccountServicesFound", "No service signs in with an account of the domain",
		"Give it a local account, or take it away until the image is made:", "  sc.exe config <service> obj= LocalSystem"),
	custom("InvalidIp", "Every network adapter gets its address by DHCP",
		"For each adapter:", `  netsh interface ipv4 set address name="<adapter>" source=dhcp`),
	custom("RemoteDesktopServicesDisabled", "Remote Desktop Services are not disabled",
		"Let the service start on demand:", "  sc.exe config TermService start= demand"),
	custom("WindowsModulesInstallerDisabled", "The Windows Modules Installer is not disabled",
		"Let the service start on demand:", "  sc.exe config TrustedInstaller start= demand"),
	custom("AmazonSsmAgentEnabled", "The Amazon SSM Agent is disabled",
		"Disable the service:", "  sc.exe config AmazonSSMAgent start= disabled"),
	custom("UnsupportedSecurityProtocol", "SSL 3.0 and TLS 1.2 are enabled",
		"For each of SSL 3.0 and TLS 1.2, and each of Client and Server, then restart:",
		`  reg add "HKLM\SYSTEM\CurrentControlSet\Control\SecurityProviders\SCHANNEL\Protocols\TLS 1.2\Client" /v Enabled /t REG_DWORD /d 1 /f`,
		`  reg add "HKLM\SYSTEM\CurrentControlSet\Control\SecurityProviders\SCHANNEL\Protocols\TLS 1.2\Client" /v DisabledByDefault /t REG_DWORD /d 0 /f`),
	custom("MultipleUserProfiles", "There are no profiles but the user's own, Default and Administrator",
		"Delete the others: sysdm.cpl > Advanced > User Profiles > Settings:", "  sysdm.cpl"),
	custom("StagedAppxPackage", "No AppX package is staged",
		"Take staged packages away, in Windows PowerShell as an administrator:",
		"  Get-AppxPackage -AllUsers | Where-Object { $_.PackageUserInformation -match 'Staged' } | Remove-AppxPackage -AllUsers"),
	custom("UnsupportedOsUpgrade", "Windows was not upgraded in place",
		"Launch a WorkSpace from a bundle that has the newer Windows:", "  aws workspaces describe-workspace-bundles --owner AMAZON"),
	custom("InsufficientRearmCount", "Windows can still be rearmed",
		"See how often it can be; a count of 0 does not come back:", "  slmgr /dlv"),
}

// custom makes a row of the checker of custom images.
func custom(code, title string, remedy ...string) Check {
	return Check{
		Code: code, ReportAs: code, Level: Fail, DecidedIn: InGuest, Operation: "CreateWorkspaceImage",
		Title: title, Source: "facts §4.4", Applies: "custom images (CreateWorkspaceImage), no imported machines",
		Evaluation: "Nothing is read: Amazon's checker of custom images decides it in the WorkSpace.", Remedy: steps(remedy...),
		judge: func(*Facts, Params) Verdict {
			return notApplicable("Amazon asks for it where a custom image is made of a WorkSpace (CreateWorkspaceImage), not where a machine is imported.")
		},
	}
}
