#!/bin/sh
# Makes fat12.img.gz, fat16.img.gz and fat32.img.gz with dosfstools and mtools of Debian 12; the results are committed, so that tests
# need neither. fat.sums holds the files' digests, which are the same on all; fat.used the clusters in use and in all by fsck.vfat.
set -e
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
mkdir -p tree/EFI/Microsoft/Boot 'tree/Ein langer Ordnername mit Umlaut ä' tree/many
seq 1 4000 >tree/EFI/Microsoft/Boot/BCD
seq 1 900 >tree/EFI/Microsoft/Boot/bootmgfw.efi
: >tree/empty
seq 5 77 >'tree/Ein langer Ordnername mit Umlaut ä/日本語 and a name of more than twenty-six characters.txt'
for i in $(seq 1 40); do echo "$i" >"tree/many/entry number $i"; done
export MTOOLS_SKIP_CHECK=1 LC_ALL=C.UTF-8
: >"$here/fat.used"
make() {
	truncate -s "$3" "$1.img"
	mkfs.vfat -F "$2" -n BOOTDISK $4 "$1.img" >/dev/null
	# A hole between files, so that chains are not in one piece.
	seq 1 700 >one
	mcopy -i "$1.img" one ::/one
	for f in tree/*; do mcopy -s -i "$1.img" "$f" ::/; done
	mdel -i "$1.img" ::/one
	seq 1 3000 >two
	mcopy -i "$1.img" two ::/two
	fsck.vfat -n "$1.img" | sed -n "s,.* files\, \([0-9]*\)/\([0-9]*\) clusters,$1 \1 \2,p" >>"$here/fat.used"
	gzip -9 -n -c "$1.img" >"$here/$1.img.gz"
}
make fat12 12 2M '-s 1'
make fat16 16 9M '-s 2'
make fat32 32 36M '-s 1'
cp two tree/two
(cd tree && find . -type f | LC_ALL=C sort | tr '\n' '\0' | xargs -0 sha256sum | sed 's,\./,,') >"$here/fat.sums"
