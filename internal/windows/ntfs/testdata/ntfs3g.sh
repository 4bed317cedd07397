#!/bin/sh
# Makes the volume ntfs3g.img.gz: what ntfs-3g writes, with contents that need no random numbers. Run as root where FUSE works,
# with ntfs-3g and libwim15 of Debian 12; the result is committed, so that tests need neither.
# The files' digests are in ntfs3g.sums; those of files compressed by WOF are of what was compressed.
set -e
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
img=$dir/img
truncate -s 12M "$img"
mkntfs -q -F -L 'Größe C' -c 4096 "$img" >/dev/null 2>&1
mkdir "$dir/m"
ntfs-3g -o big_writes,compression,streams_interface=windows "$img" "$dir/m"
trap 'cd /; umount "$dir/m"; rm -rf "$dir"' EXIT
cd "$dir/m"
mkdir -p Windows/System32/config 'Program Files' big 'Ünïcode Ä/ß' comp
printf hello >small.txt
printf 'alternate' >small.txt:stream
seq 1 900 >small.txt:large
seq 1 2500 >Windows/System32/config/SYSTEM
ln Windows/System32/config/SYSTEM hard.txt
truncate -s 5M sparse.bin
printf end | dd of=sparse.bin bs=1 seek=3000000 conv=notrunc 2>/dev/null
i=0
while [ $i -lt 400 ]; do
	: >"big/a file with a long name $i.dat"
	i=$((i + 1))
done
mkdir cases
for name in ab AB Ab aB abc ABC; do printf $name >cases/$name; done
printf x >'Ünïcode Ä/ß/日本.txt'
python3 "$here/ntfs3g.py"
# A full volume on which every other cluster comes free fragments what is written then, up to an attribute list.
mkdir fill
i=0
while [ $i -lt 900 ]; do
	printf '%4096d' $i >fill/$i
	i=$((i + 1))
done
dd if=/dev/zero of=filler bs=4096 2>/dev/null || true
i=1
while [ $i -lt 900 ]; do
	rm fill/$i
	i=$((i + 2))
done
i=0
while [ $i -lt 420 ]; do
	printf '%4096d' $i
	i=$((i + 1))
done >fragmented
rm -r fill filler
find . -type f | LC_ALL=C sort | grep -v '^./wof\|^./dedup\|^./big' | tr '\n' '\0' | xargs -0 sha256sum >"$here/ntfs3g.sums"
cat "$dir/wof.sums" >>"$here/ntfs3g.sums"
cd /
umount "$dir/m"
trap 'rm -rf "$dir"' EXIT
gzip -9 -n -c "$img" >"$here/ntfs3g.img.gz"
