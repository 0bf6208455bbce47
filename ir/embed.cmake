# Turns the text file INPUT into OUTPUT, the initialiser list of a C character array, terminator included.
file(READ "${INPUT}" hex HEX)
string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
file(WRITE "${OUTPUT}.new" "${hex}0x00\n")
file(RENAME "${OUTPUT}.new" "${OUTPUT}")
