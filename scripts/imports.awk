# imports.awk -v root=worker/src FILE...: prints "from-file to-file" for every import between the given files of one crate:
# `use` trees and paths in code that begin with crate, self or super. Comments and test modules do not count.
# A module is named without extension, relative to root: consumer/read. The crate's root is "lib".

function resolve(path,    part, count, at, n, i, module, base) {
    count = split(path, part, "::")
    base = current == "lib" ? "" : current
    at = 1
    if (part[1] == "crate") { base = ""; at = 2 }
    else if (part[1] == "self") at = 2
    while (part[at] == "super") {
        if (!sub(/\/[^\/]*$/, "", base)) base = ""
        at++
    }
    module = base
    for (i = at; i <= count; i++) if (part[i] != "*" && part[i] != "self") module = module (module == "" ? "" : "/") part[i]
    # The longest beginning that is a file: what follows is an item in it.
    while (module != "" && !(module in known)) if (!sub(/\/[^\/]*$/, "", module)) module = ""
    if (module == "") module = "lib"
    if (module != current && !((current, module) in seen)) {
        seen[current, module] = 1
        print current, module
    }
}

function blank() { while (substr(text, pos, 1) ~ /[ \n\t]/) pos++ }

# Reads a path or a tree of paths at pos.
function walk(prefix,    name) {
    for (;;) {
        blank()
        if (substr(text, pos, 1) == "{") {
            pos++
            for (;;) {
                blank()
                if (substr(text, pos, 1) == ",") { pos++; continue }
                if (substr(text, pos, 1) == "}" || pos > length(text)) { pos++; return }
                walk(prefix)
            }
        }
        if (!match(substr(text, pos, 200), /^([A-Za-z0-9_]+|\*)/)) { resolve(prefix); pos++; return }
        name = substr(text, pos, RLENGTH)
        pos += RLENGTH
        prefix = prefix (prefix == "" ? "" : "::") name
        if (substr(text, pos, 2) != "::") {
            resolve(prefix)
            if (match(substr(text, pos, 100), /^ as [A-Za-z0-9_]+/)) pos += RLENGTH
            return
        }
        pos += 2
    }
}

function scan(    rest) {
    pos = 1
    while (match(rest = substr(text, pos), /(^|[^A-Za-z0-9_:$])(crate|self|super)::/)) {
        pos += RSTART - 1
        if (substr(text, pos, 1) !~ /[cs]/ || substr(text, pos, 1) ~ /[^A-Za-z0-9_]/) pos++
        walk("")
    }
}

BEGIN {
    for (i = 1; i < ARGC; i++) {
        module = substr(ARGV[i], length(root) + 2)
        sub(/\.rs$/, "", module)
        if (module != "lib" && module != "main") known[module] = 1
    }
    for (i = 1; i < ARGC; i++) {
        current = substr(ARGV[i], length(root) + 2)
        sub(/\.rs$/, "", current)
        if (current == "main") continue
        text = ""
        testing = 0
        while ((getline line < ARGV[i]) > 0) {
            # A test module lasts until a brace in the first column. Other items for tests count like code.
            if (testing == 2) { if (line ~ /^\}/) testing = 0; continue }
            if (line ~ /^#\[cfg\(test\)\]$/) { testing = 1; continue }
            if (testing == 1 && line ~ /^(pub(\([a-z]+\))? )?mod [a-z_]+ \{$/) { testing = 2; continue }
            testing = 0
            sub(/\/\/.*$/, "", line)
            text = text line "\n"
        }
        close(ARGV[i])
        scan()
    }
    exit
}
