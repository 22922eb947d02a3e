#!/usr/bin/env bash
# host.sh ROOT BIGDISK CHECK IMAGE...: lets the Nix in ROOT, which is only read, use disks as bigdisk host mounts them. Run it by
# unshare --mount, as root.
set -euo pipefail
root=$1 bigdisk=$2 check=$3
shift 3

# a writable view of ROOT, in memory; what is mounted here goes with the mount namespace
work=$(mktemp -d)
trap 'cd /; umount -R "$work" 2>/dev/null || umount -l "$work"; rmdir "$work"' EXIT
mount -t tmpfs tmpfs "$work"
mkdir "$work"/{upper,workdir,root}
mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/workdir" "$work/root"
cd "$work/root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs mnt
mkdir mnt/by-id mnt/rw
cp "$bigdisk" usr/bin/bigdisk

# inside runs a command in that view
inside() { chroot . /usr/bin/env -i PATH=/usr/bin:/bin HOME=/root LC_ALL=C "$@"; }
fail() { echo "$*" >&2; exit 1; }
attach() { cp --sparse=always "$2" "mnt/by-id/google-$1"; cp "$2.manifest.json" "mnt/by-id/google-$1.manifest.json"; }
on() { inside bigdisk host mount --service "$1" --device-dir /mnt/by-id --mount-root /mnt/disks "${@:2}"; }
layered() { inside bigdisk host overlay --mount-root /mnt/disks --upper /mnt/rw "$@"; }
verify() { inside nix-store --store "$store" --verify --check-contents 2>&1 | tee mnt/said; ! grep -E 'error|warning|missing|modified|disappeared|not valid' mnt/said; }
find_one() { (cd mnt/disks; echo /nix/store/"$(basename "$(ls -d "$1"/nix/store/*-"$2")")"); }
cat > mnt/new.nix <<'NIX'
{ name, lower, other ? lower }: derivation {
  inherit name; system = builtins.currentSystem; builder = "/bin/sh"; lower = builtins.storePath lower; other = builtins.storePath other;
  args = [ "-euc" "export PATH=/usr/bin:/bin; $lower/bin/notes diary > $out; echo $lower $other >> $out" ];
}
NIX
build() { inside nix-build --store "$store" --no-out-link /mnt/new.nix --argstr name "$@"; }
closure() { inside nix-store --store "$store" --query --requisites "$1" | sort; }

case $check in
moves) # IMAGE, one with everything that it has, and one with only a part of it: what is built on the first outlives it
  attach nix-v1 "$1"; on nix
  store=$(layered --service nix)
  notes=$(find_one nix/current notes-2.3)
  new=$(build new --argstr lower "$notes"); built=$(inside cat "$new")
  inside nix path-info --store "$store" --recursive "$(find_one nix/current 'replit-module-hello-1')" > /dev/null # leaves rows
  closure "$new" > mnt/closure
  verify
  [ "$(layered --service nix)" = "$store" ] || fail 'the URL has changed'

  attach nix-v2 "$2"; on nix
  [ "$(readlink mnt/disks/nix/current)" = v2 ] || fail 'v2 is not current'
  store=$(layered --service nix)
  [[ $store == *%2Fmnt%2Fdisks%2Fnix%2Fv2%26* ]] || fail "the store is $store"
  [ "$(inside cat "$new")" = "$built" ] || fail 'what was built has changed'
  closure "$new" | diff mnt/closure -
  verify
  newer=$(build newer --argstr lower "$(find_one nix/v2 notes-2.4)" --argstr other "$new")
  ! ls mnt/rw/upper | grep -Ev -e '-new(er)?(\.drv)?$' || fail 'something was copied that is on the disk'
  verify

  attach nix-v3 "$3"; on nix
  layered --service nix --json > mnt/json; cat mnt/json
  store=$(layered --service nix)
  grep -q '"copied":\[.*notes-2.3' mnt/json || fail 'what v3 lacks was not copied'
  ls mnt/rw/upper | grep -q notes-2.3 || fail 'notes-2.3 is not in the upper layer'
  ! ls mnt/rw/upper | grep -q -e notes-2.4 -e wordlist || fail 'what v3 has was copied'
  [ "$(inside cat "$new")" = "$built" ] || fail 'what was built has changed'
  closure "$new" | diff mnt/closure -
  closure "$newer" > /dev/null
  verify
  build newest --argstr lower "$notes" --argstr other "$newer"
  verify

  # and back: what was copied is on the disk again, and Nix deletes the copies below the overlay
  on nix --version v1
  store=$(layered --service nix)
  ls mnt/rw/upper | grep -q notes-2.3 || fail 'the copy of notes-2.3 is gone already'
  inside ls "$notes" > mnt/listed
  inside nix-collect-garbage --store "$store" > mnt/said 2>&1 || fail "garbage collection: $(cat mnt/said)"
  ! grep -i remount mnt/said || fail 'Nix was not told how to mount the overlay anew'
  ! ls mnt/rw/upper | grep notes-2.3 || fail 'the copy of notes-2.3 was not deleted'
  inside ls "$notes" | diff mnt/listed - || fail 'notes-2.3 is not as it is on the disk'
  inside nix path-info --store "$store" --recursive "$notes" > /dev/null
  verify
  build last --argstr lower "$notes"
  verify
  ;;
lost) # IMAGE, and one that lacks a part of it: without the first, what was built on it is refused, or given up
  attach nix-v1 "$1"; on nix
  store=$(layered --service nix)
  new=$(build new --argstr lower "$(find_one nix/current notes-2.3)")
  kept=$(build kept --argstr lower "$(find_one nix/current notes-2.3)")
  attach nix-v2 "$2"; on nix
  umount mnt/disks/nix/v1 # as if the machine had been started again without it
  umount nix/store
  ! layered --service nix 2> mnt/said || fail 'the store stands on what is not there'
  cat mnt/said; grep -q 'lost store paths.*notes-2.3' mnt/said
  grep -q 'hint: .*--drop-lost' mnt/said
  store=$(layered --service nix --drop-lost)
  ! inside nix path-info --store "$store" "$new" || fail 'what was built on lost paths is still valid'
  verify
  build again --argstr lower "$(find_one nix/current notes-2.4)"
  verify
  ;;
stack) # two disks, of two services: builds refer to paths of both, and none is copied
  attach nix-v1 "$1"; on nix
  attach more-v1 "$2"; on more
  store=$(layered --lower /mnt/disks/nix/current --lower /mnt/disks/more/current)
  one=$(find_one nix/current notes-2.3) two=$(find_one more/current notes-2.4)
  new=$(build new --argstr lower "$one" --argstr other "$two")
  inside cat "$new"
  closure "$new" | tee mnt/closure
  grep -Fx "$one" mnt/closure; grep -Fx "$two" mnt/closure
  copied=$(ls mnt/rw/upper | grep -Ev -e '-new(\.drv)?$' || true)
  [ -z "$copied" ] || fail "copied into the upper layer: $copied"
  verify
  lower="local?real=/mnt/rw/stack/store&state=/mnt/rw/stack/state&read-only=true"
  inside nix path-info --store "$lower" --recursive --all | sort -u > mnt/known
  (cd mnt/disks; ls -d nix/current/nix/store/* more/current/nix/store/*) | sed 's|.*/|/nix/store/|' | sort -u | diff - mnt/known
  chroot --userspec=65534:65534 . /usr/bin/env -i PATH=/usr/bin:/bin HOME=/tmp nix path-info --store "$lower" --all | sort | diff - mnt/known
  inside nix store verify --all --no-trust --store "$lower"
  # and back to one of them
  store=$(layered --lower /mnt/disks/nix/current)
  closure "$new" | diff mnt/closure -
  verify
  ;;
network) # the second of two disks comes over the network: an NBD server, and a filesystem in user space that shows its disk as a file
  attach nix-v1 "$1"; on nix
  mkdir mnt/net
  port=$((20000 + RANDOM % 20000))
  nbdkit -f -r -i 127.0.0.1 -p $port --log=null file "$2" & server=$!
  trap 'kill $server; cd /; umount -R "$work" 2>/dev/null || umount -l "$work"; rmdir "$work"' EXIT
  for try in $(seq 50); do (: < /dev/tcp/127.0.0.1/$port) 2> /dev/null && break; sleep 0.1; done
  nbdfuse -r mnt/net/disk --tcp 127.0.0.1 $port &
  for try in $(seq 50); do [ -e mnt/net/disk ] && break; sleep 0.1; done
  ln -s /mnt/net/disk mnt/by-id/google-more-v1; cp "$2.manifest.json" mnt/by-id/google-more-v1.manifest.json
  on more --full
  inside bigdisk host status --service more --device-dir /mnt/by-id --mount-root /mnt/disks
  store=$(layered --lower /mnt/disks/more/current)
  new=$(build new --argstr lower "$(find_one more/current notes-2.4)")
  verify
  store=$(layered --lower /mnt/disks/more/current --lower /mnt/disks/nix/current)
  newer=$(build newer --argstr lower "$(find_one nix/current notes-2.3)" --argstr other "$new")
  closure "$newer" | grep -e notes-2.3 -e notes-2.4
  verify
  # the server is gone: the next look at the disk says so, and does not hang
  kill $server
  echo 3 > /proc/sys/vm/drop_caches
  ! on more --full || fail 'a disk without its server is sound'
  inside bigdisk host status --service more --device-dir /mnt/by-id --mount-root /mnt/disks > mnt/said && fail 'host status says that all is well'
  grep failed mnt/said
  [ "$(readlink mnt/disks/more/current)" = v1 ] || fail 'v1 is not current any more'
  ;;
nested) # what Nix makes of a local-overlay store below another, without bigdisk's merged database
  attach nix-v1 "$1"; on nix
  attach more-v1 "$2"; on more
  mkdir -p mnt/merged mnt/between/db mnt/rw/{upper,work}
  inside mount -t overlay overlay -o lowerdir=/mnt/disks/more/v1/nix/store:/mnt/disks/nix/v1/nix/store /mnt/merged
  cp mnt/disks/more/v1/nix/var/nix/db/* mnt/between/db/; chmod u+w mnt/between/db/*
  inside mount -t overlay overlay -o lowerdir=/mnt/merged,upperdir=/mnt/rw/upper,workdir=/mnt/rw/work /nix/store
  between="local-overlay://?real=/mnt/merged&state=/mnt/between&check-mount=false&upper-layer=/mnt/disks/more/v1/nix/store"
  between+="&lower-store=local%3Froot%3D%2Fmnt%2Fdisks%2Fnix%2Fv1%26read-only%3Dtrue"
  twice() { sed 's/%/%25/g; s/&/%26/g; s/?/%3F/g; s/=/%3D/g' | sed 's/%/%25/g'; } # Nix decodes it twice
  store="local-overlay://?state=/mnt/rw/state&upper-layer=/mnt/rw/upper&lower-store=$(echo -n "$between" | twice)"
  new=$(build new --argstr lower "$(find_one nix/current notes-2.3)" --argstr other "$(find_one more/current notes-2.4)")
  closure "$new"
  verify
  ;;
*) fail "unknown check $check" ;;
esac
