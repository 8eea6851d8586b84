/* cli/verbs.c - the table of verbs: help, options, limits and functions in one place */
#include "cli/cli.h"

#define EXAMPLES "\nExamples:\n"

const struct verb cli_verbs[] = {
	{.name = "run",
	 .operands = "[--] PROGRAM [ARG...]",
	 .summary = "Run a program in a new sandbox and leave nothing behind.",
	 .details = "Makes a sandbox, runs the program with this standard input, output and error, and\n"
		    "removes the sandbox. The exit status is the program's (128 + signal; 124 after\n"
		    "--timeout); 125 means that hotcell itself failed, 127 that there is no such\n"
		    "program, 126 that it can't be run. --env is for the program.\n"
		    EXAMPLES
		    "  hotcell run -- python3 -c 'print(6 * 7)'\n"
		    "  hotcell run --isolation process --memory 512M -c 'ls / | wc -l'\n"
		    "  echo 1+1 | hotcell run --json -- bc\n"
		    "  hotcell run --code 'sum(range(10))'\n",
	 .max = 1,
	 .program = true,
	 .types = {&common_type, &run_type, &rec_exec_start_type, &rec_sandbox_create_type},
	 .run = run_run,
	 .error_status = CLI_FAILED},
	{.name = "create",
	 .operands = "",
	 .summary = "Make a sandbox and print its id.",
	 .details = EXAMPLES "  id=$(hotcell create --name lab --memory 1G)\n",
	 .types = {&common_type, &rec_sandbox_create_type},
	 .run = run_create},
	{.name = "exec",
	 .operands = "SANDBOX [--] PROGRAM [ARG...]",
	 .summary = "Run a program in a sandbox that is there.",
	 .details = "Exit status as for 'hotcell run'. Ctrl-C is sent to the program; a second one ends it.\n"
		    EXAMPLES
		    "  hotcell exec lab -- uname -r\n"
		    "  hotcell exec lab -t -- top\n"
		    "  hotcell exec lab --detach --tag server -- python3 -m http.server 8000\n",
	 .min = 1,
	 .max = 2,
	 .program = true,
	 .types = {&common_type, &follow_type, &rec_exec_start_type},
	 .run = run_exec,
	 .error_status = CLI_FAILED},
	{.name = "code",
	 .operands = "run SANDBOX [SOURCE] | open|list SANDBOX | interrupt|restart|close SANDBOX CONTEXT",
	 .summary = "Run source in a live interpreter of a sandbox; its state stays.",
	 .details = "run        SOURCE, --file, or standard input, in --context N, else in the language's first\n"
		    "           idle one, which is started when there is none. What it prints comes while it\n"
		    "           runs; the value of a last expression is printed. The exit status is 0, 1 after an\n"
		    "           exception (shell: the last command's), 124 after --timeout, 130 when interrupted.\n"
		    "open       Start another context and print its number.\n"
		    "list       The contexts of a sandbox.\n"
		    "interrupt  What a context runs ends with KeyboardInterrupt; its state stays.\n"
		    "restart    A new interpreter in its place.\n"
		    "close      End a context and all that it started.\n"
		    EXAMPLES
		    "  hotcell code run lab 'x = 6 * 7'\n"
		    "  hotcell code run lab 'x'\n"
		    "  hotcell code run lab --save plots --file analysis.py\n"
		    "  hotcell code run lab --language shell 'cd /tmp; export DEBUG=1'\n",
	 .min = 1,
	 .max = 3,
	 .types = {&common_type, &code_type, &rec_code_run_type, &rec_code_open_type},
	 .run = run_code,
	 .error_status = CLI_FAILED},
	{.name = "shell",
	 .operands = "SANDBOX",
	 .summary = "Open a login shell on a terminal in a sandbox.",
	 .min = 1,
	 .max = 1,
	 .types = {&common_type, &shell_type, &rec_exec_start_type},
	 .run = run_shell,
	 .error_status = CLI_FAILED},
	{.name = "attach",
	 .operands = "SANDBOX SESSION",
	 .summary = "Follow a session that 'hotcell sessions' lists.",
	 .min = 2,
	 .max = 2,
	 .types = {&common_type, &attach_type},
	 .run = run_attach,
	 .error_status = CLI_FAILED},
	{.name = "sessions",
	 .operands = "SANDBOX",
	 .summary = "List the programs started in a sandbox, ended ones for 30 s.",
	 .min = 1,
	 .max = 1,
	 .types = {&common_type},
	 .run = run_sessions},
	{.name = "signal",
	 .operands = "SANDBOX SESSION SIGNAL",
	 .summary = "Send a signal (a name or a number) to a session.",
	 .details = "KILL ends all that the session started, also what it left running when it ended.\n",
	 .min = 3,
	 .max = 3,
	 .types = {&common_type},
	 .run = run_signal},
	{.name = "cp",
	 .operands = "FROM TO",
	 .summary = "Copy files and directories; one side is SANDBOX:PATH.",
	 .details = "Directories are copied whole. A target that is a directory takes the source in under\n"
		    "its own name. '-' is standard input or output. Permission bits, times and holes are kept,\n"
		    "links only if they can't lead out of the tree. What is left out or fails is named, and\n"
		    "the exit status is 1 then.\n"
		    EXAMPLES
		    "  hotcell cp data.csv lab:/home/user/\n"
		    "  hotcell cp lab:results ./results\n"
		    "  tar c src | hotcell cp - lab:/tmp/src.tar\n",
	 .min = 2,
	 .max = 2,
	 .types = {&common_type, &cp_type},
	 .run = run_cp},
	{.name = "ls",
	 .operands = "SANDBOX[:PATH]",
	 .summary = "List a directory in a sandbox.",
	 .min = 1,
	 .max = 1,
	 .types = {&common_type, &ls_type},
	 .run = run_ls},
	{.name = "watch",
	 .operands = "SANDBOX[:DIRECTORY]",
	 .summary = "Follow what changes in a directory of a sandbox, until Ctrl-C.",
	 .details = "A line per change: create, write, remove, rename or chmod, and the path below the\n"
		    "directory. 'overflow' means that changes were left out: look for yourself.\n",
	 .min = 1,
	 .max = 1,
	 .types = {&common_type, &watch_type},
	 .run = run_watch},
	{.name = "ps",
	 .operands = "SANDBOX",
	 .summary = "List the processes in a sandbox.",
	 .min = 1,
	 .max = 1,
	 .types = {&common_type},
	 .run = run_ps},
	{.name = "list",
	 .operands = "",
	 .summary = "List the sandboxes.",
	 .types = {&common_type},
	 .run = run_list},
	{.name = "info",
	 .operands = "[SANDBOX]",
	 .summary = "Show a sandbox and the system in it, or the daemon.",
	 .max = 1,
	 .types = {&common_type},
	 .run = run_info},
	{.name = "rm",
	 .operands = "SANDBOX...",
	 .summary = "Remove sandboxes and everything in them.",
	 .max = ARGS_MAX,
	 .types = {&common_type, &rm_type},
	 .run = run_rm},
	{.name = "fork",
	 .operands = "SANDBOX",
	 .summary = "Make running copies of a running sandbox: memory, disk and processes.",
	 .details = "Prints their ids. The copies get a new name, clock and randomness; programs run on in\n"
		    "them, without whoever followed them. Secrets that programs hold are copied with them.\n"
		    EXAMPLES "  hotcell fork lab -n 3 --name try\n",
	 .min = 1,
	 .max = 1,
	 .types = {&common_type, &rec_sandbox_fork_type},
	 .run = run_fork},
	{.name = "pause",
	 .operands = "SANDBOX",
	 .summary = "Save a sandbox and give its memory back.",
	 .min = 1,
	 .max = 1,
	 .types = {&common_type},
	 .run = run_pause},
	{.name = "resume",
	 .operands = "SANDBOX",
	 .summary = "Let a paused sandbox go on.",
	 .min = 1,
	 .max = 1,
	 .types = {&common_type},
	 .run = run_resume},
	{.name = "snapshot",
	 .operands = "[create] SANDBOX | list | info SNAPSHOT | rm SNAPSHOT",
	 .summary = "Keep a running sandbox as it is: memory, disk and processes.",
	 .details = "Of a process sandbox, which has no memory of its own, it has the files; 'hotcell restore'\n"
		    "makes a process sandbox that begins with them.\n"
		    EXAMPLES
		    "  hotcell snapshot lab --name before\n"
		    "  hotcell rollback lab before\n"
		    "  hotcell restore before --name again\n",
	 .min = 1,
	 .max = 2,
	 .types = {&common_type, &rec_snapshot_create_type},
	 .run = run_snapshot},
	{.name = "restore",
	 .operands = "SNAPSHOT",
	 .summary = "Make a sandbox that goes on from a snapshot.",
	 .min = 1,
	 .max = 1,
	 .types = {&common_type, &rec_sandbox_create_type},
	 .run = run_restore},
	{.name = "rollback",
	 .operands = "SANDBOX SNAPSHOT",
	 .summary = "Put a sandbox back to a snapshot that was taken of it.",
	 .min = 2,
	 .max = 2,
	 .types = {&common_type},
	 .run = run_rollback},
	{.name = "template",
	 .operands = "build TEMPLATE | list | info TEMPLATE | rm TEMPLATE",
	 .summary = "Boot a template once and keep it hot: sandboxes of it are forks from then on.",
	 .details = "build makes the image first, if it is missing or its recipe changed. Each shape (--cpus,\n"
		    "--memory, --disk) is hot by itself; others boot. rm keeps the image; sandboxes run on.\n"
		    EXAMPLES "  hotcell template build base\n",
	 .min = 1,
	 .max = 2,
	 .types = {&common_type, &rec_template_build_type},
	 .run = run_template},
	{.name = "pool",
	 .operands = "set TEMPLATE | list | rm TEMPLATE",
	 .summary = "Keep sandboxes of a template ready, so that a create only has to take one.",
	 .details = "set   How many: --size of them set up and waiting, --prestarted as empty shells, which\n"
		    "      have to load the hot template first but use less memory while they wait.\n"
		    "list  What there is, how many creates took one, and how many found none.\n"
		    "rm    End a pool. Name the same wall and sizes as for set.\n"
		    "A create takes a spare of its template, wall and sizes; 'info' says path: pool or\n"
		    "prestarted. A spare belongs to nobody before: 'list' does not show it.\n"
		    EXAMPLES "  hotcell template build base\n  hotcell pool set base --size 3\n",
	 .min = 1,
	 .max = 2,
	 .types = {&common_type, &rec_pool_set_type},
	 .run = run_pool},
	{.name = "port",
	 .operands = "SANDBOX [LOCAL:]GUEST",
	 .summary = "Forward a TCP port of 127.0.0.1 to a port in a sandbox, until Ctrl-C.",
	 .details = "Without LOCAL, or with 0, a free port is taken; the address is printed. While it is open\n"
		    "the sandbox counts as used; when the sandbox goes, it ends.\n",
	 .min = 2,
	 .max = 2,
	 .types = {&common_type},
	 .run = run_port},
	{.name = "events",
	 .operands = "[SANDBOX]",
	 .summary = "Follow what happens, until Ctrl-C.",
	 .max = 1,
	 .types = {&common_type, &events_type},
	 .run = run_events},
	{.name = "image",
	 .operands = "COMMAND [ARG...]",
	 .summary = "Build, list, verify and remove images; list the recipes they are built of.",
	 .foreign = true},
	{.name = "daemon",
	 .operands = "status | stop",
	 .summary = "Show the daemon and the disk it uses, or end it and its keeper.",
	 .details = "status  Whether it runs, where its directories are, and how much disk images, snapshots,\n"
		    "        sandboxes and kept QEMUs take. Starts nothing.\n"
		    "stop    End daemon and keeper. While sandboxes run it names them and ends nothing; with --force\n"
		    "        they end too. Paused sandboxes, snapshots and images stay on disk, and any other command\n"
		    "        starts the daemon again.\n",
	 .min = 1,
	 .max = 1,
	 .types = {&common_type, &daemon_type},
	 .run = run_daemon},
	{.name = "doctor",
	 .operands = "",
	 .summary = "Say what this host can do, what not, why, and what to type.",
	 .types = {&common_type},
	 .run = run_doctor},
	{.name = "version", .operands = "", .summary = "Show the versions.", .types = {&common_type},
	 .run = run_version},
	{.name = "help",
	 .operands = "[COMMAND]",
	 .summary = "Show help.",
	 .max = 1,
	 .types = {&common_type},
	 .run = run_help},
	{.name = NULL},
};
