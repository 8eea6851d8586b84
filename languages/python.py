# python.py - a live Python interpreter that runs what hotcell sends it
# hotcell-language: python3 -B -
#
# Frames on descriptor 3, both ways: u8 kind, u24 length, bytes, little-endian (doc/code.md). Runs in the sandbox,
# as its user, with nothing but the standard library; numpy, pandas and matplotlib are touched only if the code
# that runs here has imported them. Everything is in one function, so that user code finds a clean __main__.


def serve():
    import ast
    import binascii
    import builtins
    import fcntl
    import gc
    import io
    import json
    import linecache
    import os
    import random
    import select
    import signal
    import struct
    import sys
    import threading
    import traceback
    import types
    import warnings

    RUN, RESEED, ENV = 1, 2, 3
    READY, RUNNING, PART, BODY, ERROR, END, RESEEDED = range(1, 8)
    OK, FAILED, INTERRUPTED = range(3)
    PIECE = 32000
    PART_MAX = 32 * 1024 * 1024
    JSON_MAX = 1024 * 1024
    SVG_MAX = 256 * 1024
    ROWS_MAX = 1000
    CELLS_KEPT = 200
    AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    COROUTINE = 0x80  # inspect.CO_COROUTINE, without importing it
    FUTURES = 0
    for name in __import__("__future__").all_feature_names:
        FUTURES |= getattr(__import__("__future__"), name).compiler_flag

    ours = serve.__globals__  # how our own frames are told from others
    pid = os.getpid()
    main_thread = threading.current_thread()
    lock = threading.RLock()
    # Far from what programs close when they become daemons.
    link = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, 900)
    os.close(3)

    class State:
        running = False  # user code may be interrupted
        sending = False  # ... but not now: a frame must be whole
        pending = False  # it was, when it could not be
        cell = 0
        flags = 0
        loop = None
        shown = ()  # figures of this run that were shown already
        found = None  # generators of random numbers, as an idle moment found them

    # ---- frames ----

    def write(data):
        view = memoryview(data)
        while view:
            view = view[os.write(link, view):]

    def frame(kind, body=b""):
        write(struct.pack("<I", kind | len(body) << 8) + body)

    def read(n):
        data = b""
        while len(data) < n:
            piece = os.read(link, n - len(data))
            if not piece:
                os._exit(0)  # the other end is gone, and the sandbox with it
            data += piece
        return data

    class whole:
        """What is sent inside is not torn by an interrupt."""

        def __enter__(self):
            lock.acquire()
            if threading.current_thread() is main_thread:
                State.sending = True

        def __exit__(self, *args):
            late = False
            if threading.current_thread() is main_thread:
                State.sending = False
                late, State.pending = State.pending and State.running, False
            lock.release()
            if late:
                raise KeyboardInterrupt

    def flush():
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            try:
                stream.flush()
            except Exception:
                pass

    def send(kind, head, body):
        if os.getpid() != pid:
            return  # a forked child has no voice here
        flush()
        with whole():
            frame(kind, struct.pack("<I", len(body)) + head)
            for at in range(0, len(body), PIECE):
                frame(BODY, body[at:at + PIECE])

    def part(mime, body, main):
        if isinstance(body, str):
            body = body.encode("utf-8", "backslashreplace")
        if len(body) > PART_MAX and mime.startswith("text/"):
            note = "\n... cut: %d bytes, %d is the limit" % (len(body), PART_MAX)
            body = body[:PART_MAX - 200].decode("utf-8", "ignore").encode() + note.encode()
        elif len(body) > PART_MAX:
            mime, body = "text/plain", ("(left out: %s of %d bytes, %d is the limit)" % (mime, len(body), PART_MAX)
                                        ).encode()
        send(PART, struct.pack("<B", main) + mime.encode("ascii", "replace")[:64], body)

    # ---- values ----

    METHODS = (("_repr_html_", "text/html"), ("_repr_markdown_", "text/markdown"), ("_repr_svg_", "image/svg+xml"),
               ("_repr_png_", "image/png"), ("_repr_jpeg_", "image/jpeg"), ("_repr_pdf_", "application/pdf"),
               ("_repr_latex_", "text/latex"), ("_repr_json_", "application/json"),
               ("_repr_javascript_", "application/javascript"))

    BINARY = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")

    def ask(value, name, *args, **more):
        """What value.name() says; None where it has none or it fails, which is told on standard error."""
        if isinstance(value, type):
            return None
        try:
            method = getattr(value, name, None)
            # Objects that answer to every name (mocks, proxies) mean nothing by it.
            if not callable(method) or getattr(value, "_hotcell_no_such_name_", None) is not None:
                return None
            said = method(*args, **more)
        except Exception as e:
            sys.stderr.write("".join(report(e)))
            return None
        return said[0] if isinstance(said, tuple) and said else said

    def as_json(value):
        try:
            text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        except Exception:
            return None
        return text if len(text) <= JSON_MAX else None

    def table(value):
        pandas = sys.modules.get("pandas")
        if not pandas or not hasattr(pandas, "DataFrame"):
            return None
        if isinstance(value, pandas.Series):
            value = value.to_frame()
        if not isinstance(value, pandas.DataFrame):
            return None
        mime = "application/json"
        if len(value) > ROWS_MAX:
            mime += ";rows=%d;of=%d" % (ROWS_MAX, len(value))
        try:
            text = value.head(ROWS_MAX).to_json(orient="records", date_format="iso", default_handler=str)
        except Exception:
            return None
        return (mime, text) if len(text) <= JSON_MAX else None

    def figure_class():
        module = sys.modules.get("matplotlib.figure")
        return getattr(module, "Figure", ())

    def images(figure):
        out = {}
        for kind, mime in (("png", "image/png"), ("svg", "image/svg+xml")):
            data = io.BytesIO()
            figure.savefig(data, format=kind, bbox_inches="tight")
            if kind == "png" or data.tell() <= SVG_MAX:
                out[mime] = data.getvalue()
        return out

    def representations(value):
        out = {}
        bundle = ask(value, "_repr_mimebundle_", include=None, exclude=None)
        if isinstance(bundle, dict):
            out.update((k, v) for k, v in bundle.items() if isinstance(k, str))
        for name, mime in METHODS:
            if mime not in out and (said := ask(value, name)) is not None:
                out[mime] = said
        if isinstance(value, figure_class()):
            out.update(images(value))
            State.shown += (value,)
        elif isinstance(value, (dict, list)) and (text := as_json(value)) is not None:
            out.setdefault("application/json", text)
        elif found := table(value):
            out.setdefault(*found)
        out.setdefault("text/plain", repr(value))
        return out

    def show(value, main):
        for mime, body in representations(value).items():
            if isinstance(body, (dict, list)) or (mime == "application/json" and not isinstance(body, (str, bytes))):
                body = as_json(body)
            elif isinstance(body, str) and mime in BINARY:
                body = binascii.a2b_base64(body)  # as the notebooks' bundles have it
            if isinstance(body, (bytearray, memoryview)):
                body = bytes(body)
            if isinstance(body, (str, bytes)):
                part(mime, body, main)

    def display(*values):
        """Show values along the way, as the last expression's is at the end."""
        for value in values:
            show(value, False)

    def displayhook(value):
        if value is None:
            return
        builtins._ = None
        show(value, True)
        builtins._ = value

    def plots(*args, **more):
        """Figures that are open when plt.show() is called or the run ends, as the notebooks have it."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if not pyplot or not hasattr(pyplot, "get_fignums"):
            return
        for number in pyplot.get_fignums():
            figure = pyplot.figure(number)
            if not any(figure is x for x in State.shown):
                for mime, body in images(figure).items():
                    part(mime, body, False)
        pyplot.close("all")

    class PlotsHook:
        """Finds matplotlib.pyplot where it is, and makes its show() show."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            if name != "matplotlib.pyplot":
                return None
            for finder in sys.meta_path:
                spec = finder.find_spec(name, path, target) if finder is not PlotsHook else None
                if not spec:
                    continue
                execute_module = spec.loader.exec_module

                def exec_module(module):
                    execute_module(module)
                    module.show = plots
                    module.Figure.show = lambda figure, warn=True: show(figure, False)

                spec.loader.exec_module = exec_module
                return spec
            return None

    # ---- what notebooks have beside Python: !command, %word, %%word ----

    class UsageError(Exception):
        __qualname__, __module__ = "UsageError", "__main__"

    def shell(command, keep=False):
        """!command: what it says goes where print() goes, or comes back as a list of lines."""
        import subprocess

        flush()
        done = subprocess.run(["/bin/sh", "-c", filled(command)], stdout=subprocess.PIPE if keep else None)
        user_scope()["_exit_code"] = done.returncode
        find_packages()
        return done.stdout.decode("utf-8", "replace").splitlines() if keep else None

    def find_packages():
        """What a command has installed: the folder of the user's own packages may be new."""
        import importlib
        import site

        importlib.invalidate_caches()
        if site.ENABLE_USER_SITE and os.path.isdir(site.getusersitepackages()):
            if site.getusersitepackages() not in sys.path:
                site.addsitedir(site.getusersitepackages())

    def user_scope():
        return sys.modules["__main__"].__dict__

    def filled(text):
        """{expression} and $name stand for values, where they are any; everything else is the shell's."""
        import re

        def value(match):
            try:
                return str(eval(match[1] or match[2], user_scope()))
            except Exception:
                return match[0]

        return re.sub(r"\{([^{}]+)\}|(?<![\\$])\$([A-Za-z_]\w*)",
                      lambda m: value(m) if m[1] or m[2] in user_scope() else m[0], text)

    def program(*words, text=None):
        import subprocess

        flush()
        done = subprocess.run(words, input=text, text=True)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, words[0])

    def magic_pip(words, body):
        flush()
        shell("%s -m pip %s" % (sys.executable, words))

    def magic_cd(words, body):
        os.chdir(os.path.expanduser(filled(words) or "~"))
        print(os.getcwd())

    def magic_env(words, body):
        name, is_set, value = words.partition("=")
        if is_set:
            os.environ[name.strip()] = filled(value.strip())
        elif words:
            return os.environ.get(words)
        else:
            return dict(os.environ)

    def seconds(value):
        for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
            if value * factor >= 1:
                break
        else:
            unit, factor = "ns", 1e9
        return "%.3g %s" % (value * factor, unit)

    def magic_timeit(words, body):
        import timeit

        if words.startswith("-"):
            raise UsageError("%timeit takes no options here: it finds the number of loops itself")

        timer = timeit.Timer(body or words, words if body else "pass", globals=user_scope())
        loops, _ = timer.autorange()
        times = [t / loops for t in timer.repeat(5, loops)]
        print("%s per loop (best of %d runs, %d loops each)" % (seconds(min(times)), len(times), loops))

    def magic_time(words, body):
        import time

        begun, cpu = time.perf_counter(), time.process_time()
        try:
            run_text(body or words)
        finally:
            print("CPU time: %s, wall time: %s" % (seconds(time.process_time() - cpu),
                                                   seconds(time.perf_counter() - begun)))

    def magic_writefile(words, body):
        words = words.split()
        if not words or words[:-1] not in ([], ["-a"]):
            raise UsageError("usage: %%writefile [-a] FILE")
        with open(os.path.expanduser(words[-1]), "a" if len(words) > 1 else "w") as file:
            file.write(body)
        print("wrote", words[-1])

    def magic_bash(words, body):
        program("bash", *words.split(), text=body)

    def magic_nothing(words, body):
        """Plots are shown in any case, modules reloaded by restarting the context."""

    MAGICS = {"pip": magic_pip, "cd": magic_cd, "env": magic_env, "timeit": magic_timeit, "time": magic_time,
              "pwd": lambda words, body: os.getcwd(), "ls": lambda words, body: shell("ls " + words),
              "matplotlib": magic_nothing, "config": magic_nothing}
    CELL_MAGICS = {"bash": magic_bash, "sh": magic_bash, "timeit": magic_timeit, "time": magic_time,
                   "writefile": magic_writefile}

    def magic(line):
        name, _, words = line.partition(" ")
        if name not in MAGICS:
            raise UsageError("%%%s is not known here; there are %s, and !command" %
                             (name, " ".join("%" + x for x in sorted(MAGICS))))
        return MAGICS[name](words.strip(), "")

    def cell_magic(source):
        head, _, body = source.lstrip().partition("\n")
        name, _, words = head[2:].strip().partition(" ")
        if name not in CELL_MAGICS:
            raise UsageError("%%%%%s is not known here; there are %s" %
                             (name, " ".join("%%" + x for x in sorted(CELL_MAGICS))))
        return CELL_MAGICS[name](words.strip(), body)

    def as_python(line):
        """A line that is none, as a call; None: it is not one of ours either."""
        indent = line[:len(line) - len(line.lstrip())]
        text = line.strip()
        before, is_set, after = text.partition("=")
        if text[:1] in ("!", "%") and text[1:].strip():
            return "%s__hotcell_%s__(%r)" % (indent, "shell" if text[0] == "!" else "magic", text[1:].strip())
        if is_set and after.strip()[:1] == "!":
            return "%s%s = __hotcell_shell__(%r, True)" % (indent, before.strip(), after.strip()[1:].strip())
        if is_set and after.strip()[:1] == "%":
            return "%s%s = __hotcell_magic__(%r)" % (indent, before.strip(), after.strip()[1:].strip())
        return None

    def parse(source, name, flags):
        """
        The tree of a source. Python says itself which line it does not understand; if that is a line of the
        notebooks', a call takes its place. What stands in a string or a sum is left alone this way.
        """
        lines, first = source.split("\n"), None
        while True:
            try:
                return compile("\n".join(lines), name, "exec", flags | ast.PyCF_ONLY_AST, True)
            except SyntaxError as e:
                first = first or e
                at = (e.lineno or 0) - 1
                call = as_python(lines[at]) if 0 <= at < len(lines) else None
                if not call:
                    raise first from None
                lines[at] = call

    # ---- exceptions ----

    def theirs(tb):
        """The traceback without our own frames, which may be at both ends, and without the event loop's that lead to us."""
        frames = []
        while tb:
            if tb.tb_frame.f_globals is not ours:
                frames.append(tb)
            elif tb.tb_frame.f_code is in_loop.__code__:
                frames.clear()
            tb = tb.tb_next
        for old in reversed(frames):
            tb = types.TracebackType(tb, old.tb_frame, old.tb_lasti, old.tb_lineno)
        return tb

    def report(e):
        seen, queue = set(), [e]
        while queue:
            x = queue.pop()
            if x is None or id(x) in seen:
                continue
            seen.add(id(x))
            x.__traceback__ = theirs(x.__traceback__)
            queue += [x.__cause__, x.__context__, *getattr(x, "exceptions", ())]
        return traceback.format_exception(type(e), e, e.__traceback__)

    def error(e):
        try:
            text = "".join(report(e))
        except Exception:
            text = "(its traceback could not be written)\n"
        try:
            message = str(e)
        except Exception:
            message = "(it could not be written)"
        name = type(e).__qualname__ if type(e).__module__ in ("builtins", "__main__") else \
            type(e).__module__ + "." + type(e).__qualname__
        name = name.encode("utf-8", "replace")[:1024]
        body = text.encode("utf-8", "backslashreplace")
        if len(body) > JSON_MAX:
            body = body[:JSON_MAX // 2] + b"\n...\n" + body[-JSON_MAX // 2:]
        message = message.encode("utf-8", "backslashreplace")[:2048]
        send(ERROR, struct.pack("<H", len(name)) + name + message, body)

    # ---- randomness ----

    def generators():
        kinds, numpy = (random.Random,), sys.modules.get("numpy.random")
        if numpy:
            kinds += (numpy.BitGenerator, numpy.RandomState)
        return [x for x in gc.get_objects() if isinstance(x, kinds) and not isinstance(x, random.SystemRandom)]

    def alone():
        return threading.active_count() == 1

    def look_around():
        """
        Find the generators while nothing is to do: it takes time and touches all memory, which forks share.
        What was found holds until something runs. The first run, which may be what warms a template, ends with it;
        later it waits for a pause.
        """
        if State.found is None and alone():
            if State.cell < 2 or not select.select([link], [], [], 1.0)[0]:
                State.found = generators()

    def refresh(generator):
        random.Random.seed(generator, int.from_bytes(os.urandom(32), "little"))  # a number goes in without a hash

    def reseed():
        """Everything in this process that makes numbers nobody should guess starts from new ones."""
        numpy, shared = sys.modules.get("numpy.random"), getattr(random, "_inst", None)
        if shared:
            refresh(shared)
        if numpy:
            numpy.seed(struct.unpack("<8I", os.urandom(32)))
        if "_ssl" in sys.modules:
            sys.modules["_ssl"].RAND_add(os.urandom(32), 32.0)
        for x in State.found if State.found is not None and alone() else generators():
            if x is shared:
                continue
            if isinstance(x, random.Random):
                refresh(x)
            elif isinstance(x, numpy.BitGenerator):
                x.state = type(x)().state
            else:  # with the bits, it forgets the half of a pair of normal numbers it has kept
                x.set_state(numpy.RandomState(struct.unpack("<8I", os.urandom(32))).get_state())

    def on_reseed(signo, stack):
        if os.getpid() != pid:
            return
        try:
            reseed()
        except BaseException:
            os._exit(70)  # rather none than one that others can guess

    # ---- running ----

    def on_interrupt(signo, stack):
        if os.getpid() != pid:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        elif State.running and not State.sending:
            while stack and stack.f_globals is ours:
                stack = stack.f_back
            if stack:
                raise KeyboardInterrupt
        State.pending = True  # between our own lines: the next evaluate() or frame sees it

    def event_loop():
        asyncio = __import__("asyncio")
        if not State.loop or State.loop.is_closed():
            State.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(State.loop)
        return State.loop

    def wait_for(coroutine):
        loop = event_loop()
        task = loop.create_task(coroutine)
        try:
            return loop.run_until_complete(task)
        except BaseException:
            if not task.done():  # asked twice, one that ended would lose its traceback
                task.cancel()
                try:
                    loop.run_until_complete(task)
                except BaseException:
                    pass
            raise

    async def in_loop(codes, scope):
        value = None
        for code in codes:
            value = eval(code, scope)
            if code.co_flags & COROUTINE:
                value = await value
        return value

    def evaluate(codes, scope):
        """If one of them awaits something, all run in the loop: what it awaits may be made by the ones before."""
        if State.pending:
            raise KeyboardInterrupt
        value = None
        if any(code.co_flags & COROUTINE for code in codes):
            return wait_for(in_loop(codes, scope))
        for code in codes:
            value = eval(code, scope)
        return value

    def execute(source, scope):
        State.cell += 1
        State.shown = ()
        name = "<cell %d>" % State.cell
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        linecache.cache.pop("<cell %d>" % (State.cell - CELLS_KEPT), None)
        if source.lstrip().startswith("%%"):
            cell_magic(source)
        else:
            run_source(source, name, scope)

    def run_text(source):
        run_source(source, "<cell %d>" % State.cell, user_scope())

    def run_source(source, name, scope):
        flags = State.flags | AWAIT
        tree = parse(source, name, flags)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        codes = [compile(tree, name, "exec", flags, True)] if tree.body else []
        for code in codes:
            State.flags |= code.co_flags & FUTURES
        if last:
            codes.append(compile(ast.Expression(last.value), name, "eval", flags | State.flags, True))
        value = evaluate(codes, scope)
        if last:
            sys.displayhook(value)

    def leave_child(code):
        """A fork() of the cell came back here: it is no interpreter."""
        flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)

    def text_of(source):
        try:
            return source.decode("utf-8-sig")
        except UnicodeDecodeError as e:
            raise SyntaxError("the source is not UTF-8: byte 0x%02x at offset %d" % (source[e.start], e.start)) from None

    def run(source, scope):
        code = 0
        State.running, State.pending = True, False
        try:
            frame(RUNNING)
            execute(text_of(source), scope)
            if os.getpid() == pid:
                plots()
            State.running = False
        except KeyboardInterrupt as e:
            State.running = False
            caught = e
            outcome = INTERRUPTED
        except SystemExit as e:
            State.running = False
            caught = e
            code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
            outcome = FAILED if code else OK
        except BaseException as e:
            State.running = False
            caught = e
            code = 1
            outcome = FAILED
        else:
            caught = None
            outcome = OK
        if os.getpid() != pid:
            if outcome == FAILED and not isinstance(caught, SystemExit):
                traceback.print_exception(type(caught), caught, theirs(caught.__traceback__))
            leave_child(code)
        if caught:
            try:
                plots()
            except Exception:
                pass  # what ended the run is what counts
        if caught and outcome != OK:
            error(caught)
            sys.last_type, sys.last_value, sys.last_traceback = type(caught), caught, caught.__traceback__
        return outcome, code

    class NoInput(io.TextIOBase):
        """Standard input of code that nobody types to."""

        encoding = "utf-8"

        def readline(self, size=-1):
            raise EOFError("there is no input here: code in a context cannot ask for any")

        def read(self, size=-1):
            return ""

        def readable(self):
            return True

        def fileno(self):
            return 0

        def close(self):
            """exit() closes it; the interpreter stays."""

    def take_env(body):
        for entry in body.split(b"\0")[:-1]:
            name, is_set, value = entry.partition(b"=")
            if is_set:
                os.environb[name] = value
            else:
                os.environb.pop(name, None)

    def mute_child():
        try:
            os.close(link)
        except OSError:
            pass

    def main():
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        sys.stdin = sys.__stdin__ = NoInput()
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
        os.environ.setdefault("MPLBACKEND", "Agg")
        warnings.filterwarnings("ignore", message=".*is non-interactive, and thus cannot be shown")
        os.register_at_fork(after_in_child=mute_child)
        signal.signal(signal.SIGINT, on_interrupt)
        signal.signal(signal.SIGUSR2, on_reseed)
        builtins.display = display
        builtins.__hotcell_shell__ = shell
        builtins.__hotcell_magic__ = magic
        sys.meta_path.insert(0, PlotsHook)
        sys.displayhook = displayhook
        sys.argv = [""]
        user = types.ModuleType("__main__")
        sys.modules["__main__"] = user
        user.__dict__["__builtins__"] = builtins
        frame(READY)
        while True:
            if State.cell != 1:
                look_around()
            kind, = struct.unpack("<I", read(4))
            body = read(kind >> 8)
            if kind & 255 == RUN:
                State.found = None
                outcome, code = run(body, user.__dict__)
                flush()
                if State.cell == 1:
                    look_around()
                frame(END, struct.pack("<Bi", outcome, max(-2**31, min(code, 2**31 - 1))))
            elif kind & 255 == RESEED:
                reseed()
                frame(RESEEDED, body)
            elif kind & 255 == ENV:
                take_env(body)

    main()


serve()
