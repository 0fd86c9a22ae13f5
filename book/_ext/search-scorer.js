// Sphinx puts this in front of its search script. Scores are Sphinx's own, less for names of the API, and on top what
// `search_weights.py` knows: how much a page says about the words that were asked for.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false; // a page on a disk may not read others
}

// Words without accents, as `search_weights.py` puts them into the index. (Sphinx takes its own only where there is none.)
var splitQuery = (query) =>
  query
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .split(/[^\p{Letter}\p{Number}_\p{Emoji_Presentation}]+/gu)
    .filter((term) => term);

const weightOfPage = (page) => {
  const stemmer = new Stemmer();
  const asked = new URLSearchParams(location.search).get("q") ?? "";
  const words = splitQuery(asked.trim()).map((word) => stemmer.stemWord(word.toLowerCase()));
  const number = window.searchWeights?.pages.indexOf(page);
  const weight = (word) => {
    const pairs = window.searchWeights?.words[word] ?? [];
    const at = pairs.findIndex((part, i) => i % 2 === 0 && part === number);
    return at < 0 ? 0 : pairs[at + 1];
  };
  return words.reduce((sum, word) => sum + weight(word), 0);
};

var Scorer = {
  score: ([page, title, anchor, description, score, filename]) => score + (anchor ? 0 : weightOfPage(page)),
  objNameMatch: 6,
  objPartialMatch: 3,
  objPrio: { 0: 6, 1: 3, 2: -5 },
  objPrioDefault: 0,
  title: 7,
  partialTitle: 6,
  term: 5,
  partialTerm: 2,
};
