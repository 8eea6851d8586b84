/* base/t_err.c */
#include "base/err.h"
#include "base/testing.h"

static void raising_sets_code_and_sentence(void **state)
{
	struct err e = ERR_INIT;

	T_UNUSED(state);
	assert_int_equal(err_set(&e, ERR_LIMIT, "argv: %d entries", 7), -ERR_LIMIT);
	assert_int_equal(e.code, ERR_LIMIT);
	assert_string_equal(e.text, "argv: 7 entries");
	assert_int_equal(err_set(NULL, ERR_GONE, "nobody %s", "listens"), -ERR_GONE);
}

static void long_sentences_are_cut(void **state)
{
	struct err e = ERR_INIT;
	char big[3 * ERR_TEXT_MAX];

	T_UNUSED(state);
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	assert_int_equal(err_set(&e, ERR_INVALID, "%s", big), -ERR_INVALID);
	assert_int_equal(strlen(e.text), ERR_TEXT_MAX - 1);
	assert_int_equal(err_sys(&e, -ENOENT, "%s", big), -ERR_NOT_FOUND);
	assert_int_equal(strlen(e.text), ERR_TEXT_MAX - 1);
	assert_int_equal(err_wrap(&e, "%s", big), -ERR_NOT_FOUND);
	assert_int_equal(strlen(e.text), ERR_TEXT_MAX - 1);
}

static void errno_becomes_code_and_words(void **state)
{
	struct err e = ERR_INIT;

	T_UNUSED(state);
	assert_int_equal(err_sys(&e, -ENOENT, "open %s", "x"), -ERR_NOT_FOUND);
	assert_string_equal(e.text, "open x: No such file or directory");
	assert_int_equal(err_disk(&e, -EDQUOT, "write %s", "x"), -ERR_LIMIT);
	assert_non_null(strstr(e.text, "write x: the disk that holds hotcell's state is full; remove"));
	assert_int_equal(err_disk(&e, -ENOENT, "open %s", "x"), -ERR_NOT_FOUND);
	assert_string_equal(e.text, "open x: No such file or directory");
	assert_int_equal(err_code_of_errno(-EACCES), ERR_DENIED);
	assert_int_equal(err_code_of_errno(-ENOSPC), ERR_LIMIT);
	assert_int_equal(err_code_of_errno(-EPIPE), ERR_GONE);
	assert_int_equal(err_code_of_errno(-EIO), ERR_INTERNAL);
	assert_int_equal(err_code_of_errno(-12345), ERR_INTERNAL);
}

static void context_comes_in_front(void **state)
{
	struct err e = ERR_INIT;

	T_UNUSED(state);
	err_set(&e, ERR_DENIED, "no");
	assert_int_equal(err_wrap(&e, "create %s", "a"), -ERR_DENIED);
	assert_string_equal(e.text, "create a: no");
	assert_true(err_wrap(NULL, "nothing") < 0);
}

static void copies_keep_code_and_text(void **state)
{
	struct err a = ERR_INIT, b = ERR_INIT;

	T_UNUSED(state);
	err_set(&a, ERR_TIMEOUT, "late");
	assert_int_equal(err_copy(&b, &a), -ERR_TIMEOUT);
	assert_string_equal(b.text, "late");
	assert_int_equal(err_copy(NULL, &a), -ERR_TIMEOUT);
	assert_int_equal(err_copy(&a, &a), -ERR_TIMEOUT);
	assert_int_equal(err_copy(&b, NULL), 0);
}

static void every_code_has_a_name_of_its_own(void **state)
{
	T_UNUSED(state);
	assert_string_equal(err_code_name(ERR_NOT_FOUND), "not_found");
	assert_string_equal(err_code_name(-1), "unknown");
	assert_string_equal(err_code_name(ERR_CODE_N), "unknown");
	assert_string_equal(err_code_name(1 << 30), "unknown");
	for (int i = 1; i < ERR_CODE_N; i++)
		for (int j = 1; j < i; j++)
			assert_string_not_equal(err_code_name(i), err_code_name(j));
}

T_MAIN(T(raising_sets_code_and_sentence), T(long_sentences_are_cut), T(errno_becomes_code_and_words),
       T(context_comes_in_front), T(copies_keep_code_and_text), T(every_code_has_a_name_of_its_own))
