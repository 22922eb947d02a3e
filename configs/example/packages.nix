# The example's packages: plain derivations over /bin/sh, with nothing to download. Two modules, each locked twice; what the
# second version rebuilds, and what it leaves alone, is what a release of real modules does.
let
  # mk builds a store path by a shell script in recipes/. The other attributes are its environment, store paths among them its dependencies.
  mk = name: recipe: env: derivation ({
    inherit name;
    system = "x86_64-linux";
    builder = "/bin/sh";
    recipe = ./recipes + "/${recipe}.sh";
    args = [ "-euc" "export PATH=/usr/bin:/bin LC_ALL=C; umask 022; . $recipe" ];
  } // env);

  # module is what the lock file names: one JSON file, which says where its packages are.
  module = id: description: packages: env: derivation {
    name = "replit-module-${id}";
    system = "x86_64-linux";
    builder = "/bin/sh";
    json = builtins.toJSON {
      inherit id description;
      name = description;
      env = env // { PATH = builtins.concatStringsSep ":" (map (p: "${p}/bin") packages); };
    };
    args = [ "-euc" "printf '%s\\n' \"$json\" > $out" ];
  };

  # Shared by all; the same in every version.
  wordlist = mk "wordlist-2024a" "wordlist" { };
  # Shared by all; rebuilt for the second version, so that everything above it is rebuilt too.
  textlib = patch: mk "textlib-2.1" "textlib" { inherit patch wordlist; };

  release = { patch, hello, notes }: rec {
    lib = textlib patch;
    helloPackage = mk "hello-${hello}" "hello" { version = hello; textlib = lib; };
    notesPackage = mk "notes-${notes}" "notes" { version = notes; textlib = lib; hello = helloPackage; };
    hello-1 = module "hello-1" "Greetings in many languages" [ helloPackage ] { HELLO_LOCALES = "${helloPackage}/share/locale"; };
    notes-2 = module "notes-2" "Notes in plain text" [ notesPackage helloPackage ] { NOTES_TEMPLATES = "${notesPackage}/share/notes/templates"; };
  };
  v1 = release { patch = "0"; hello = "1.0"; notes = "2.3"; };
  v2 = release { patch = "1"; hello = "1.1"; notes = "2.4"; };

  # A locked version: its commit would be a revision of the modules' repository; here it is made up from the key.
  locked = key: module: rec {
    inherit module;
    commit = builtins.hashString "sha1" key;
    id = "${key}-${builtins.substring 0 7 commit}";
    entry = "  \"${id}\": {\n    \"commit\": \"${commit}\",\n    \"path\": \"${module}\"\n  }";
  };
  lock = [
    (locked "hello-1:v1-20240311" v1.hello-1)
    (locked "hello-1:v2-20240502" v2.hello-1)
    (locked "notes-2:v1-20240311" v1.notes-2)
    (locked "notes-2:v2-20240502" v2.notes-2)
  ];
in
{
  modules = map (l: l.module) lock;
  lockFile = "{\n${builtins.concatStringsSep ",\n" (map (l: l.entry) lock)}\n}\n";
}
