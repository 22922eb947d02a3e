# A program that sources its library by store path, with a message catalogue for each language.
mkdir -p $out/bin $out/share/locale $out/share/doc/hello $out/share/man/man1
cat > $out/bin/hello <<PROGRAM
#!/bin/sh
. $textlib/lib/text.sh
lang=\${LANG%%_*}
text_centre "\$(cat $out/share/locale/\${lang:-en}/hello.txt 2>/dev/null || echo 'Hello, world!')"
PROGRAM
chmod +x $out/bin/hello
ln -s hello $out/bin/greet
greet() { mkdir -p $out/share/locale/$1; echo "$2" > $out/share/locale/$1/hello.txt; }
greet en 'Hello, world!'; greet en_GB 'Hello, world!'; greet en_US 'Hello, world!'
greet de 'Hallo, Welt!'; greet fr 'Bonjour, le monde !'; greet el 'Γεια σου, κόσμε!'; greet ja 'こんにちは、世界！'
printf '.TH HELLO 1 "" "hello %s"\n.SH NAME\nhello \\- greet the world\n' $version > $out/share/man/man1/hello.1
echo "hello $version, built with $textlib" > $out/share/doc/hello/README
cp $textlib/share/doc/textlib/changelog $out/share/doc/hello/changelog
