# Runs berth-checker.exe, which lies beside this script, as an administrator. What is given to the script is given to the program:
#
#   .\BYOLChecker.ps1                          the dialog, as a page in the browser
#   .\BYOLChecker.ps1 --output text            the tests in this window
#   .\BYOLChecker.ps1 --yes --output json      without questions, for other programs
#   .\BYOLChecker.ps1 --help
#
# Exit codes: 0 all tests have passed; 1 they have not; 2 it could not be told, or something else went wrong.

$checker = Join-Path -Path $PSScriptRoot -ChildPath 'berth-checker.exe'
if (-not (Test-Path -LiteralPath $checker -PathType Leaf)) {
    Write-Error "berth-checker.exe is not in $PSScriptRoot. Extract all files of BYOLChecker.zip into one folder, and run this script there."
    exit 2
}
# What came from another computer bears a mark, for which Windows would ask about the program once more.
Unblock-File -LiteralPath $checker -ErrorAction SilentlyContinue

$identity = New-Object -TypeName Security.Principal.WindowsPrincipal -ArgumentList ([Security.Principal.WindowsIdentity]::GetCurrent())
if ($args.Count -gt 0 -and -not $identity.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)) {
    Write-Error 'Run this as administrator: choose Start, right-click Windows PowerShell, and choose Run as administrator.'
    exit 2
}
# Without arguments the program asks for an administrator's rights by itself.
& $checker @args
exit $LASTEXITCODE
