#!/bin/sh
# Makes the volume bigdir.img.gz: a directory of 20,000 files as ntfs-3g writes it, made in an order in which its index splits nodes
# everywhere. Run as root where FUSE works, with ntfs-3g of Debian 12; the result is committed.
set -e
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
img=$dir/img
truncate -s 40M "$img"
mkntfs -q -F -L 'Many' -c 4096 "$img" >/dev/null 2>&1
mkdir "$dir/m"
ntfs-3g -o big_writes "$img" "$dir/m"
trap 'cd /; umount "$dir/m"; rm -rf "$dir"' EXIT
mkdir "$dir/m/many"
cd "$dir/m/many"
# 7919 is prime to 20000: every number comes once.
i=0
while [ $i -lt 20000 ]; do
	n=$((i * 7919 % 20000))
	: >"Entry $n.dat"
	i=$((i + 1))
done
printf 'the one that is looked for' >'Entry 12345.dat'
cd /
umount "$dir/m"
trap 'rm -rf "$dir"' EXIT
gzip -9 -n -c "$img" >"$here/bigdir.img.gz"
