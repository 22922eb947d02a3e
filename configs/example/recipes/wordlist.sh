# A dictionary as text (compresses well), as an index (does not), and a mostly empty table (holes).
mkdir -p $out/share/dict
awk 'BEGIN {
  n = split("ka lo mi ne ru sa ti vo bel dor fen gar", part, " "); s = 7
  for (i = 0; i < 60000; i++) {
    word = ""
    for (j = 0; j < 4; j++) { s = (s * 16807) % 2147483647; word = word part[s % n + 1] }
    print word
  }
}' | sort > $out/share/dict/words
ln -s words $out/share/dict/american-english
sed -n '1~7p' $out/share/dict/words > $out/share/dict/short
awk 'BEGIN { s = 11; for (i = 0; i < 96000; i++) { s = (s * 16807) % 2147483647; printf "\\\\x%02x%s", s / 128 % 256, i % 32 == 31 ? "\n" : "" } }' |
  xargs -n 500 printf '%b' > $out/share/dict/index
truncate -s 3M $out/share/dict/offsets
printf 'end of table\n' >> $out/share/dict/offsets
touch $out/share/dict/stopwords
