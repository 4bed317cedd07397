#Requires -Version 5.1
#Requires -RunAsAdministrator
<#
.SYNOPSIS
Does inside Windows what "berth fix" cannot do on its powered-off disk.

.DESCRIPTION
Every step looks first whether it is done already, and afterwards whether it had an effect: the script can be run again at any
time. What it does stands on the screen and in the log; a new password stands on the screen only, once.

Exit codes: 0 all is done; 1 at least one step failed.

.PARAMETER DryRun
Say what would be done, and do nothing.

.PARAMETER LogFile
Where to write the log: berth-first-boot.log beside the script if not said otherwise.
#>
[CmdletBinding()]
param(
    [switch]$DryRun,
    [string]$LogFile
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
if (-not $LogFile) { $LogFile = Join-Path $PSScriptRoot 'berth-first-boot.log' }
if ([Environment]::Is64BitOperatingSystem -and -not [Environment]::Is64BitProcess) {
    throw 'This is the 32-bit PowerShell, which lacks the commands for accounts: use the 64-bit one.'
}
$script:Failed = 0
$script:Random = [Security.Cryptography.RandomNumberGenerator]::Create()

function Write-Log([string]$Text) {
    $line = '{0:u} {1}' -f (Get-Date).ToUniversalTime(), $Text
    Write-Host $line
    Add-Content -LiteralPath $LogFile -Value $line -Encoding UTF8
}

function Invoke-Step([string]$Codes, [string]$Does, [scriptblock]$Done, [scriptblock]$Do) {
    try {
        if (& $Done) {
            Write-Log "done already: $Does ($Codes)"
            return
        }
        if ($DryRun) {
            Write-Log "would: $Does ($Codes)"
            return
        }
        Write-Log "begin: $Does ($Codes)"
        & $Do
        if (-not (& $Done)) { throw 'it had no effect' }
        Write-Log "done: $Does ($Codes)"
    } catch {
        $script:Failed++
        Write-Log "FAILED: $Does ($Codes): $($_.Exception.Message)"
    }
}

# A number from 0 up to, not including, Below (256 at most). Bytes that would favour small numbers are thrown away.
function Get-RandomNumber([int]$Below) {
    $byte = New-Object byte[] 1
    $most = 256 - 256 % $Below
    do { $script:Random.GetBytes($byte) } while ($byte[0] -ge $most)
    $byte[0] % $Below
}

# 13 characters: 10 small letters, a capital, a digit and a special character, in random order.
function New-Password {
    $sets = @('abcdefghijklmnopqrstuvwxyz') * 10 + 'ABCDEFGHIJKLMNOPQRSTUVWXYZ' + '0123456789' + '!#%*+-=?@_'
    $characters = @(foreach ($set in $sets) { $set[(Get-RandomNumber $set.Length)] })
    for ($i = $characters.Count - 1; $i -gt 0; $i--) {
        $j = Get-RandomNumber ($i + 1)
        $characters[$i], $characters[$j] = $characters[$j], $characters[$i]
    }
    -join $characters
}

function Test-Account([string]$Name) {
    @(Get-LocalUser | Where-Object { $_.Name -eq $Name }).Count -gt 0
}

# The local group of administrators has another name in each language.
function Get-AdministratorsGroup {
    $sid = New-Object Security.Principal.SecurityIdentifier 'S-1-5-32-544'
    $name = $sid.Translate([Security.Principal.NTAccount]).Value.Split('\')[-1]
    [ADSI]"WinNT://$env:COMPUTERNAME/$name,group"
}

# Get-LocalGroupMember fails as a whole when one member is an account that is no more; this does not.
function Test-Administrator([string]$Name) {
    if (-not (Test-Account $Name)) { return $false }
    $sid = (Get-LocalUser -Name $Name).SID.Value
    foreach ($member in @((Get-AdministratorsGroup).psbase.Invoke('Members'))) {
        try {
            $bytes = ([ADSI]$member).psbase.InvokeGet('objectSid')
        } catch {
            continue # an account of a domain that cannot be asked
        }
        if ((New-Object Security.Principal.SecurityIdentifier $bytes, 0).Value -eq $sid) { return $true }
    }
    $false
}

function Add-Administrator([string]$Name) {
    if (-not (Test-Account $Name)) {
        $password = New-Password
        $secure = ConvertTo-SecureString -String $password -AsPlainText -Force
        New-LocalUser -Name $Name -Password $secure -AccountNeverExpires -PasswordNeverExpires | Out-Null
        Write-Host ''
        Write-Host "    The password of $Name is   $password" -ForegroundColor Yellow
        Write-Host '    It is shown this once and written nowhere: note it down.'
        Write-Host ''
    }
    if (-not (Test-Administrator $Name)) { Add-LocalGroupMember -SID 'S-1-5-32-544' -Member $Name }
}

function Test-AccountEnabled([string]$Name) {
    @(Get-LocalUser | Where-Object { $_.Name -eq $Name -and $_.Enabled }).Count -gt 0
}

# Uninstallers that cannot delete themselves go on in a copy: the program is gone when its uninstaller is.
function Start-Uninstaller([string]$Path, [string]$Arguments) {
    $info = New-Object Diagnostics.ProcessStartInfo
    $info.FileName = $Path
    $info.Arguments = $Arguments
    $info.UseShellExecute = $false
    $process = [Diagnostics.Process]::Start($info)
    if (-not $process.WaitForExit(15 * 60 * 1000)) {
        $process.Kill()
        throw 'the uninstaller did not end within 15 minutes'
    }
    # 1641 and 3010 say that it is done and Windows should be restarted.
    if (@(0, 1641, 3010) -notcontains $process.ExitCode) { throw "the uninstaller ended with exit code $($process.ExitCode)" }
    for ($i = 0; $i -lt 120 -and (Test-Path -LiteralPath $Path); $i++) { Start-Sleep -Seconds 1 }
}

# What users have of a package, in whatever version: bundles are listed only where they are asked for, and the package inside one bears
# another version. Bundles come first.
function Get-InstalledPackage([string]$FullName) {
    $parts = $FullName.Split('_')
    Get-AppxPackage -AllUsers -PackageTypeFilter Bundle, Main, Framework | Where-Object {
        $_.Name -eq $parts[0] -and $_.PublisherId -eq $parts[-1] -and
        @($_.PackageUserInformation | Where-Object { "$($_.InstallState)" -eq 'Installed' }).Count -gt 0
    } | Sort-Object -Property IsBundle -Descending
}

# New users are given packages by a name that may tell another architecture: what goes before the first underscore is the package.
function Get-ProvisionedPackage([string]$FullName) {
    $name = $FullName.Split('_')[0]
    Get-AppxProvisionedPackage -Online | Where-Object { $_.PackageName -eq $FullName -or $_.DisplayName -eq $name }
}

function Test-PackageGone([string]$FullName) {
    @(Get-InstalledPackage $FullName).Count -eq 0 -and @(Get-ProvisionedPackage $FullName).Count -eq 0
}

# A bundle takes what is in it along, which alone cannot be removed for all users: after each removal one looks anew.
function Remove-Package([string]$FullName) {
    foreach ($package in @(Get-ProvisionedPackage $FullName)) {
        Remove-AppxProvisionedPackage -Online -PackageName $package.PackageName | Out-Null
    }
    $before = [int]::MaxValue
    $left = @(Get-InstalledPackage $FullName)
    while ($left.Count -gt 0 -and $left.Count -lt $before) {
        Remove-AppxPackage -Package $left[0].PackageFullName -AllUsers
        $before = $left.Count
        $left = @(Get-InstalledPackage $FullName)
    }
}

#STEPS#

if ($script:Failed -gt 0) {
    Write-Log "$script:Failed of the steps failed."
    exit 1
}
if ($DryRun) { Write-Log 'Nothing was changed.' } else { Write-Log 'All is done. Shut down completely (shutdown /s /t 0), export again, and run berth check.' }
exit 0
