# A library in the usual layout: versioned links, a file that names its own store path, a large directory, files that occur twice.
mkdir -p $out/lib/pkgconfig $out/include/textlib $out/share/doc/textlib $out/share/textlib/tables $out/libexec/empty
{ echo "# textlib 2.1, patch level $patch"; cat $wordlist/share/dict/short; } > $out/lib/libtext.so.2.1
chmod +x $out/lib/libtext.so.2.1
ln -s libtext.so.2.1 $out/lib/libtext.so.2
ln -s libtext.so.2 $out/lib/libtext.so
ln -s $wordlist/share/dict $out/share/textlib/dict
ln -s ../no/such/file $out/share/textlib/dangling
printf 'prefix=%s\nlibdir=${prefix}/lib\nVersion: 2.1\n' $out > $out/lib/pkgconfig/textlib.pc
for i in $(seq 1 300); do echo "/* table $i */" > $out/include/textlib/table$i.h; done
split -n r/40 -a 2 -d $wordlist/share/dict/words $out/share/textlib/tables/
sed -n '1~2p' $wordlist/share/dict/words > $out/share/doc/textlib/changelog
cp $out/share/doc/textlib/changelog $out/share/doc/textlib/NEWS
echo 'names with spaces, and in UTF-8' > "$out/share/doc/textlib/read me – first"
cat > $out/lib/text.sh <<LIB
# shell functions of textlib
text_pick() { sed -n "\${1}p" $wordlist/share/dict/words; }
text_centre() { printf '%40s\n' "\$1"; }
LIB
