# A program that calls another package's, with templates and a database whose first pages alone are in use.
mkdir -p $out/bin $out/share/notes/templates $out/share/doc/notes $out/nix-support
cat > $out/bin/notes <<PROGRAM
#!/bin/sh
[ \$# -gt 0 ] || exec $hello/bin/hello
cat "$out/share/notes/templates/\$1.txt"
PROGRAM
chmod +x $out/bin/notes
for t in meeting diary recipe; do printf '%s notes, version %s\n\n* \n' $t $version > $out/share/notes/templates/$t.txt; done
awk 'NR % 100 == 0 { print "release " NR / 100 ": " $0 }' $textlib/share/doc/textlib/changelog > $out/share/doc/notes/changelog
printf 'NOTES FORMAT 3\0' > $out/share/notes/seed.db
awk -v version=$version 'BEGIN { s = 13; for (i = 0; i < 4000; i++) { s = (s * 16807) % 2147483647; print version, i, s } }' >> $out/share/notes/seed.db
truncate -s 1M $out/share/notes/seed.db
echo $hello $textlib > $out/nix-support/propagated-build-inputs
