//! What is expected of what somebody types or gives, in Korean.

use crate::console::texts::FormTexts;

pub(super) const TEXTS: FormTexts = FormTexts {
    a_short_text: "줄 바꿈 없이 1~128자의 글",
    a_sha256: "16진수 64자리의 SHA-256",
    a_scheme: "semver, dotted, date 또는 없음",
    a_rule: "목록에 있는 규칙",
    file_empty: "제목 줄이 있어야 하지만 파일이 비어 있습니다.",
    file_columns: "열 이름은 다음 중 하나여야 합니다: {}. 파일의 열 이름: “{}”",
    file_cells: "{}번째 줄: 값이 {}개 있어야 하지만 {}개 있습니다.",
    file_quote: "{}번째 줄의 항목에서 따옴표가 닫히지 않은 채 파일이 끝났습니다.",
};
