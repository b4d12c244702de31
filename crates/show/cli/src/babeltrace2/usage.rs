//! What `--help` prints.

pub const GENERAL: &str = "\
Usage: babeltrace2 [GENERAL OPTIONS] [COMMAND] [COMMAND ARGUMENTS]

General options:
  -d, --debug                    Accepted; Sillage keeps no debug log
  -h, --help                     Show this help
  -l, --log-level=LVL            Accepted: N, T, D, I, W, E or F
      --omit-home-plugin-path    Accepted; there are no plugins to load
      --omit-system-plugin-path  Accepted; there are no plugins to load
      --plugin-path=PATH[:PATH]  Accepted; there are no plugins to load
  -v, --verbose                  Accepted
  -V, --version                  Show the version

Commands:
  convert       Read traces and show, count, cut or write them (default)
  help          Show a plugin or component class
  list-plugins  Show all plugins and component classes
  query         Ask a component class for an object
  run           Build a graph of components and run it

`babeltrace2 COMMAND --help` shows the options of a command.
";

pub const CONVERT: &str = "\
Usage: babeltrace2 [GENERAL OPTIONS] [convert] [OPTIONS] [PATH or URL]...

Reads the CTF traces at and below each PATH, or the live session at
net://HOST[:PORT]/host/TARGET/SESSION.

Components:
  -c, --component=[NAME:]TYPE.PLUGIN.CLASS  Add a component
  -l, --log-level=LVL                       Accepted
  -p, --params=PARAMS                       Set parameters of the component or path before
      --retry-duration=US                   Wait so long for more of a live session (100000)
      --run-args, --run-args-0              Print the arguments of `run` that do the same
      --stream-intersection                 Only the time in which all streams were active
  -m, --allowed-mip-versions=VERSION        Accepted

Reading:
  -i, --input-format=(ctf | lttng-live)
      --clock-force-correlate               All clocks count from the Unix epoch
      --clock-offset=S, --clock-offset-ns=NS

Range of time:
  -b, --begin=TIME   -e, --end=TIME   -t, --timerange=BEGIN,END
      TIME is `YYYY-MM-DD HH:MM[:SS[.NNNNNNNNN]]`, `HH:MM[:SS[.NNNNNNNNN]]` or
      `[-]SECONDS[.NNNNNNNNN]`

Text:
      --clock-cycles, --clock-date, --clock-gmt, --clock-seconds
      --color=(never | auto | always)
  -f, --fields=all|trace|trace:hostname|trace:domain|trace:procname|trace:vpid|loglevel|emf,...
  -n, --names=all|none|payload|context|scope|header,...
      --no-delta
  -w, --output=PATH
  -o, --output-format=(text | ctf | dummy | ctf-metadata)

Debug information:
      --debug-info, --debug-info-dir=DIR, --debug-info-full-path
      --debug-info-target-prefix=DIR
";

pub const RUN: &str = "\
Usage: babeltrace2 [GENERAL OPTIONS] run [OPTIONS]

  -b, --base-params=PARAMS                  Parameters of all components that follow
  -c, --component=NAME:TYPE.PLUGIN.CLASS    Add a component
  -l, --log-level=LVL                       Accepted
  -m, --allowed-mip-versions=VERSION        Accepted
  -p, --params=PARAMS                       Set parameters of the component before
  -r, --reset-base-params                   Forget the base parameters
      --retry-duration=US                   Wait so long for more of a live session (100000)
  -x, --connect=UP[.PORT]:DOWN[.PORT]       Connect two components; PORT is a pattern with `*`,
                                            and `\\`, `.` and `:` in names are escaped by `\\`
";

pub const QUERY: &str = "\
Usage: babeltrace2 [GENERAL OPTIONS] query [-p PARAMS] TYPE.PLUGIN.CLASS OBJECT
";

pub const HELP: &str = "\
Usage: babeltrace2 [GENERAL OPTIONS] help PLUGIN
       babeltrace2 [GENERAL OPTIONS] help TYPE.PLUGIN.CLASS
";

pub const LIST_PLUGINS: &str = "\
Usage: babeltrace2 [GENERAL OPTIONS] list-plugins
";

pub const PARAMS: &str = "
PARAMS is NAME=VALUE[,NAME=VALUE]..., where VALUE is null, yes, no, an integer (`+` in front
makes it unsigned; 0b, 0 and 0x prefixes), a real number, a word, \"text\", [VALUE, ...] or
{NAME=VALUE, ...}.
";
