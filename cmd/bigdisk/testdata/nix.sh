#!/usr/bin/env bash
# nix.sh ROOT IMAGE CHECK: holds an image against the Nix in ROOT, which is only read. Run it by unshare --mount, as root.
set -euo pipefail
root=$1 image=$2 check=$3
lower='local?root=/mnt/image&read-only=true'

# a writable view of ROOT, in memory; what is mounted here goes with the mount namespace
work=$(mktemp -d)
trap 'cd /; umount -R "$work" 2>/dev/null || umount -l "$work"; rmdir "$work"' EXIT
mount -t tmpfs tmpfs "$work"
mkdir "$work"/{upper,workdir,root}
mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/workdir" "$work/root"
cd "$work/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs mnt
mkdir mnt/image mnt/whole mnt/rw mnt/rw/{u,w,upper,work}
mount -o ro,loop "$image" mnt/image

# inside runs a command in that view
inside() { chroot . /usr/bin/env -i PATH=/usr/bin:/bin HOME=/root LC_ALL=C "$@"; }
fail() { echo "$*" >&2; exit 1; }

case $check in
store) # the read-only store opens, and has the store paths that are on the disk, each with its references
  inside nix path-info --store "$lower" --all | sort > mnt/known
  ls -d mnt/image/nix/store/* | sed 's|^mnt/image||' | sort > mnt/present
  diff mnt/known mnt/present
  inside nix path-info --store "$lower" --recursive --all | sort -u | diff - mnt/present
  chroot --userspec=65534:65534 . /usr/bin/env -i PATH=/usr/bin:/bin HOME=/tmp nix path-info --store "$lower" --all | sort | diff - mnt/present
  ;;
verify) # every path's contents have the hash, and the signature, that the database says
  inside nix store verify --all --store "$lower" --option trusted-public-keys "$4"
  ! inside nix store verify --all --store "$lower" --option trusted-public-keys 'other-1:1111111111111111111111111111111111111111111=' ||
    fail 'a key that signed nothing is taken for one that did'
  ;;
overlay) # nix-store --verify, which has to write to the store it reads, through an overlay
  mount -t overlay overlay -o lowerdir=mnt/image,upperdir=mnt/rw/u,workdir=mnt/rw/w mnt/whole
  inside nix-store --verify --check-contents --store 'local?root=/mnt/whole&read-only=true' 2>&1 | tee mnt/said
  ! grep -E 'error|warning|missing|modified|disappeared|not valid' mnt/said || fail 'nix-store --verify is not content'
  file=$(ls mnt/whole/nix/store/*/share/dict/short)
  chmod u+w "$file" && echo changed >> "$file"
  ! inside nix-store --verify --check-contents --store 'local?root=/mnt/whole&read-only=true' || fail 'nix-store --verify does not see a change'
  ;;
layered) # the lower store of a local-overlay store: a new derivation refers to a lower path, which is not copied
  inside mount -t overlay overlay -o lowerdir=/mnt/image/nix/store,upperdir=/mnt/rw/upper,workdir=/mnt/rw/work /nix/store
  store='local-overlay://?lower-store=local%3Froot%3D%2Fmnt%2Fimage%26read-only%3Dtrue&upper-layer=/mnt/rw/upper'
  path=$(cd mnt/image; echo /$(ls -d nix/store/*-notes-2.4))
  cat > mnt/new.nix <<'NIX'
{ lower }: derivation {
  name = "new"; system = builtins.currentSystem; builder = "/bin/sh"; lower = builtins.storePath lower;
  args = [ "-euc" "export PATH=/usr/bin:/bin; $lower/bin/notes diary > $out; echo $lower >> $out" ];
}
NIX
  new=$(inside nix-build --store "$store" --no-out-link /mnt/new.nix --argstr lower "$path")
  cat "nix/store/${new##*/}"
  inside nix-store --store "$store" --query --references "$new" | grep -Fx "$path"
  inside nix path-info --store "$store" --recursive "$new"
  copied=$(ls mnt/rw/upper | grep -Ev -e '-new(\.drv)?$' || true)
  [ -z "$copied" ] || fail "copied into the upper layer: $copied"
  inside nix-store --store "$store" --verify --check-contents
  ;;
*) fail "unknown check $check" ;;
esac
