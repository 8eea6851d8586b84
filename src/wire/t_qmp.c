/* wire/t_qmp.c - the monitor's messages, whole, cut, torn and hostile */
#include "wire/qmp.h"
#include "base/err.h"
#include "base/str.h"
#include "base/testing.h"

#define GREETING                                                                                   \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "         \
	"\"package\": \"Debian\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define SHUTDOWN                                                                                   \
	"{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"SHUTDOWN\", "         \
	"\"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\r\n"
#define ANSWER	"{\"return\": {\"status\": \"running\", \"running\": true}, \"id\": 41}\r\n"
#define REFUSAL                                                                                    \
	"{\"id\": 42, \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such thing\"}}\r\n"

static int parse_all(const char *text, size_t n, size_t piece, bool torn, struct qmp_message *ret,
		     unsigned max, unsigned *ret_n)
{
	struct qmp_parser p;
	int r = 0;

	*ret_n = 0;
	qmp_parser_init(&p, torn);
	for (size_t at = 0; at < n && r >= 0; at += piece) {
		struct span in = {text + at, MIN(piece, n - at)};

		while ((r = qmp_parse(&p, &in, &ret[MIN(*ret_n, max - 1)], NULL)) > 0)
			(*ret_n)++;
	}
	qmp_parser_deinit(&p);
	return r;
}

static void reads_in_any_pieces(void **state)
{
	static const char text[] = GREETING "\r\n" ANSWER SHUTDOWN REFUSAL;

	T_UNUSED(state);
	for (size_t piece = 1; piece <= sizeof(text); piece++) {
		struct qmp_message m[4];
		unsigned n;

		assert_int_equal(parse_all(text, sizeof(text) - 1, piece, false, m, 4, &n), 0);
		assert_int_equal(n, 4);
		assert_int_equal(m[0].kind, QMP_GREETING);
		assert_string_equal(m[0].name, "7.2.22");
		assert_int_equal(m[1].kind, QMP_RETURN);
		assert_int_equal(m[1].id, 41);
		assert_string_equal(m[1].text, "running");
		assert_int_equal(m[2].kind, QMP_EVENT);
		assert_string_equal(m[2].name, "SHUTDOWN");
		assert_string_equal(m[2].text, "guest-reset");
		assert_int_equal(m[3].kind, QMP_ERROR);
		assert_int_equal(m[3].id, 42);
		assert_string_equal(m[3].name, "CommandNotFound");
		assert_string_equal(m[3].text, "no such thing");
	}
}

static void passes_over_half_a_line(void **state)
{
	static const char text[] = "ng\", \"running\": true}}\r\n" ANSWER;
	struct qmp_message m[2];
	unsigned n;

	T_UNUSED(state);
	assert_int_equal(parse_all(text, sizeof(text) - 1, 7, true, m, 2, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(m[0].id, 41);
	assert_int_equal(parse_all(text, sizeof(text) - 1, 7, false, m, 2, &n), -ERR_INVALID);
	/* Only the first line has that excuse. */
	assert_int_equal(parse_all("x\ny\n", 4, 4, true, m, 2, &n), -ERR_INVALID);
	assert_int_equal(parse_all(ANSWER "y\n", sizeof(ANSWER) + 1, 9, true, m, 2, &n), -ERR_INVALID);
	assert_int_equal(n, 1);
}

static void refuses(void **state)
{
	static const char *const lines[] = {
		"hello\n", "[]\n", "{}\n", "{\"return\":\n", "{\"event\": 7}\n", "{\"error\": \"x\"}\n", "\"\\\n",
		"{\"return\": {}, \"return\": {}}\n", "{\"return\": \"\xff\"}\n", "{\"event\":\"a\"}{\n",
	};
	struct qmp_message m[1];
	unsigned n;

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		assert_int_equal(parse_all(lines[i], strlen(lines[i]), 3, false, m, 1, &n), -ERR_INVALID);
		assert_int_equal(n, 0);
	}
}

static void stays_failed(void **state)
{
	struct qmp_parser p;
	struct qmp_message m;
	struct span bad = span_of("x\n"), good = span_of(ANSWER);

	T_UNUSED(state);
	qmp_parser_init(&p, false);
	assert_int_equal(qmp_parse(&p, &bad, &m, NULL), -ERR_INVALID);
	assert_int_equal(qmp_parse(&p, &good, &m, NULL), -ERR_INVALID); /* QMP-2 */
	qmp_parser_deinit(&p);
}

static void bounds_lines_and_depth(void **state)
{
	char *text = malloc(QMP_LINE_MAX + 2), deep[256];
	struct qmp_message m[1];
	struct str s = STR_INIT(4096);
	unsigned n;

	T_UNUSED(state);
	memset(text, ' ', QMP_LINE_MAX + 1);
	memcpy(text, ANSWER, sizeof(ANSWER) - 3);
	text[QMP_LINE_MAX] = '\n';
	assert_int_equal(parse_all(text, QMP_LINE_MAX + 1, 1000, false, m, 1, &n), 0);
	assert_int_equal(n, 1);
	text[QMP_LINE_MAX] = ' ';
	assert_int_equal(parse_all(text, QMP_LINE_MAX + 1, 1000, false, m, 1, &n), -ERR_LIMIT);
	free(text);

	for (int depth = QMP_DEPTH_MAX - 1; depth <= QMP_DEPTH_MAX; depth++) {
		str_clear(&s);
		memset(deep, '[', sizeof(deep));
		str_addf(&s, "{\"return\":%.*s", depth, deep);
		memset(deep, ']', sizeof(deep));
		str_addf(&s, "%.*s}\n", depth, deep);
		assert_int_equal(parse_all(s.p, s.len, 5, false, m, 1, &n),
				 depth < QMP_DEPTH_MAX ? 0 : -ERR_LIMIT);
	}
	/* Brackets in texts do not count, escaped quotes do not end them. */
	str_clear(&s);
	memset(deep, '[', sizeof(deep));
	str_addf(&s, "{\"return\":\"\\\"%.*s\\\\\"}\n", 100, deep);
	assert_int_equal(parse_all(s.p, s.len, 5, false, m, 1, &n), 0);
	assert_int_equal(n, 1);
	str_deinit(&s);
}

static void cuts_texts(void **state)
{
	struct qmp_message m[1];
	struct str s = STR_INIT(4096);
	char many[1000];
	unsigned n;

	T_UNUSED(state);
	memset(many, 'a', sizeof(many));
	str_addf(&s, "{\"event\":\"%.*s\"}\n", (int)sizeof(many), many);
	assert_int_equal(parse_all(s.p, s.len, 100, false, m, 1, &n), 0);
	assert_int_equal(strlen(m[0].name), QMP_TEXT_MAX);
	assert_int_equal(m[0].id, 0);
	str_deinit(&s);
}

static void writes_commands(void **state)
{
	struct str s = STR_INIT(256);

	T_UNUSED(state);
	qmp_flush(&s);
	qmp_command(&s, "qmp_capabilities", NULL, QMP_ID_MAX);
	assert_string_equal(str_text(&s), "\xff{\"execute\":\"qmp_capabilities\",\"id\":9007199254740991}\n");
	str_deinit(&s);
}

T_MAIN(T(reads_in_any_pieces), T(passes_over_half_a_line), T(refuses), T(stays_failed),
       T(bounds_lines_and_depth), T(cuts_texts), T(writes_commands))
