#!/usr/bin/env bash
# Makes the image's file system from a binary, on Debian: deploy/image/root.sh BINARY FOLDER
# The Dockerfile and build.sh both call it, so that the image is the same whichever of them makes it. No shell and no package manager is
# in it: the binary without debug information, the libraries that it is linked with, root certificates, and what says where all that is from.
set -euo pipefail

binary=$1 root=$2
here=$(cd "$(dirname "$0")/../.." && pwd)
umask 022

rm -rf "$root"
mkdir -p "$root"/{dev,proc,sys,secrets,tmp,etc/bearerd,etc/ssl/certs,usr/local/bin,usr/share/doc/bearerd,var/lib/bearerd,var/lib/dpkg/status.d}
strip --strip-all -o "$root/usr/local/bin/bearerd" "$binary"
chmod 0755 "$root/usr/local/bin/bearerd"

# Names are looked up by glibc itself ("files dns"): no other library is loaded for that since 2.34.
packages=(ca-certificates)
while read -r library; do
    mkdir -p "$root/$(dirname "$library")"
    cp --dereference "$library" "$root/$library"
    # Newer releases of Debian know the same file under /usr.
    package=$({ dpkg -S "$library" 2>/dev/null || dpkg -S "/usr$library"; } | cut -d: -f1)
    [[ " ${packages[*]} " == *" $package "* ]] || packages+=("$package")
done < <(ldd "$binary" | grep -o '/[^ ]*')
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
echo 'bearerd:x:65532:65532:bearerd:/nonexistent:/usr/sbin/nologin' >"$root/etc/passwd"
echo 'bearerd:x:65532:' >"$root/etc/group"

# From the package, not from /etc/ssl, where the machine that builds may have authorities of its own.
cat /usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"

# Who wrote it, under which licence; status.d is where scanners of images look for packages.
cp "$here/LICENSE" "$root/usr/share/doc/bearerd/LICENSE"
"$here/tools/sbom.py" "${packages[@]}" >"$root/usr/share/doc/bearerd/sbom.cdx.json"
for package in "${packages[@]}"; do
    mkdir -p "$root/usr/share/doc/$package"
    cp --dereference "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
    dpkg-query --status "$package" >"$root/var/lib/dpkg/status.d/$package"
done

# The same input gives the same image.
find "$root" -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH:-0}" {} +
