"""Critiques in the words of language models, by the defect that they name; written by hand to be hard to tell apart."""

BY_DEFECT = {
    "unit": [
        "The instruction does not say that the answer must be given in metres.",
        "The instruction should specify that the answer is to be given in metres.",
        "It should state that answers must be in meters.",
        "Say that the answer must be in metres.",
    ],
    "not the unit": [
        "The instruction should say that the answer must not be given in metres.",
        "Say that answers must not be in meters.",
    ],
    "3 words": [
        "The answer must be at most 3 words long.",
        "Limit the answer to at most three words.",
        "The instruction should limit answers to no more than 3 words.",
        "The instruction does not limit the answer to at most three words.",
    ],
    "5 words": [
        "The answer must be at most 5 words long.",
        "Limit the answer to at most five words.",
        "The instruction should limit answers to no more than 5 words.",
    ],
    "at least 3 words": [
        "The answer must be at least 3 words long.",
        "The instruction should ask for at least three words.",
    ],
    "color of last": [
        "The answer should be the color of the last word of the list.",
        "The instruction should ask for the color of the list's last word.",
        "The color of the last word in the list should be the answer.",
    ],
    "color of first": [
        "The answer should be the color of the first word of the list.",
        "The instruction should ask for the color of the list's first word.",
    ],
    "color of last, gave first": [
        "The answer gives the color of the first word of the list, but it should be the color of the last word.",
        "It should be the color of the last word and not the color of the first word of the list.",
    ],
    "color of first, gave last": [
        "The answer gives the color of the last word of the list, but it should be the color of the first word.",
        "It should be the color of the first word and not the color of the last word of the list.",
    ],
    "size of last": [
        "The answer should be the size of the last word of the list.",
        "The instruction should ask for the size of the list's last word.",
    ],
    "show work": [
        "The instruction should require the model to show its intermediate steps before the final number.",
        "The instruction does not require the model to show its intermediate steps before the final number.",
        "Before the final number, the intermediate steps should be shown by the model.",
    ],
    "hide work": [
        "The instruction should require the model not to show its intermediate steps before the final number.",
        "The model should not show its intermediate steps before the final number.",
    ],
    "round 2": [
        "Round the result to two decimal places.",
        "The instruction should say to round results to 2 decimal places.",
        "Results should be rounded to two decimal places.",
        "The instruction never says to round to two decimal places.",
    ],
    "round 0": [
        "Round the result to zero decimal places.",
        "The instruction should say that results are not to be rounded to decimal places.",
    ],
    "tie": [
        "The instruction leaves open what to do when two candidates are tied; it should say to prefer the earlier one.",
        "It should say to prefer the earlier one when two candidates are tied, which the instruction leaves open.",
        "The instruction should state that the earlier one is preferred when two candidates are tied.",
    ],
    "tie, later": [
        "The instruction leaves open what to do when two candidates are tied; it should say to prefer the later one.",
        "The instruction should state that the later one is preferred when two candidates are tied.",
    ],
    "json": [
        "The output should be a JSON object with the keys name and age.",
        "It must output a JSON object with keys name and age.",
        "The instruction should ask for a JSON object whose keys are name and age.",
    ],
    "json, other keys": [
        "The output should be a JSON object with the keys name and city.",
        "The instruction should ask for a JSON object whose keys are name and city.",
    ],
    "semicolons": [
        'Separate the items by ";" in one line.',
        'The instruction should say that items are separated by ";" in one line.',
    ],
    "commas": [
        'Separate the items by "," in one line.',
        'The instruction should say that items are separated by "," in one line.',
    ],
    "sarcasm": [
        "The instruction ignores sarcasm: reviews that praise in words but mock in tone should be labelled negative.",
        "Reviews that praise in words but mock in tone should be labelled negative; the instruction ignores sarcasm.",
    ],
    "sarcasm, wrongly": [
        "The instruction ignores sarcasm: reviews that praise in words but mock in tone should be labelled positive.",
    ],
    "question only": [
        "Only use facts from the passage, and answer unknown if the passage does not contain the answer.",
        "Use only facts from the passage and answer unknown when the passage does not contain the answer.",
        "The instruction should say to use only facts from the passage, and to answer unknown if the answer is not "
        "contained in the passage.",
    ],
    "outside facts": [
        "Do not only use facts from the passage, and never answer unknown if the passage does not contain the answer.",
    ],
    "lower case": ["Write the label in lower case.", "The label must be written in lowercase."],
    "upper case": ["Write the label in upper case.", "The label must be written in uppercase."],
    "currency": [
        "The prompt never mentions that prices have to be converted to euros before they are added up.",
        "Prices have to be converted to euros before they are added up.",
        "The instruction should mention that prices are converted to euros before being added up.",
    ],
    "currency, after": [
        "The instruction should mention that prices are converted to euros after being added up.",
        "Prices have to be converted to euros after they are added up.",
    ],
    "dates": [
        "Dates should be written as YYYY-MM-DD.",
        "The instruction should require dates to be written as YYYY-MM-DD.",
        "It does not say that dates are written as YYYY-MM-DD.",
    ],
    "dates, other": ["Dates should be written as DD-MM-YYYY.", "The instruction should require DD-MM-YYYY for dates."],
    "threshold 18": [
        "Label a person as adult only from 18 years on.",
        "A person should be labelled adult from 18 years on only.",
    ],
    "threshold 21": [
        "Label a person as adult only from 21 years on.",
        "A person should be labelled adult from 21 years on only.",
    ],
    "cite": [
        "The summary should quote the sentence of the source that supports each claim.",
        "Each claim of the summary should be supported by a quoted sentence of the source.",
        "For each claim, the summary should quote the sentence in the source which supports it.",
    ],
    "no quotes": [
        "The summary should not quote the sentence of the source that supports each claim.",
        "The summary should support each claim without quoting a sentence of the source.",
    ],
    "negative numbers": [
        "The instruction does not explain how to handle negative numbers in the input.",
        "It should explain how negative numbers in the input are handled.",
        "How to handle negative input numbers should be explained.",
    ],
    "positive numbers": [
        "The instruction does not explain how to handle positive numbers in the input.",
        "It should explain how positive numbers in the input are handled.",
    ],
    "animal": [
        "The answer should be the animal that is mentioned last, instead of the animal that is mentioned first.",
        "The model answered with the animal mentioned first; it should answer with the animal mentioned last.",
    ],
    "animal, other way": [
        "The answer should be the animal that is mentioned first, instead of the animal that is mentioned last.",
        "The model answered with the animal mentioned last; it should answer with the animal mentioned first.",
    ],
    "polite": [
        "The tone of the reply is rude, it should be polite and formal.",
        "The reply should be polite and formal in tone instead of rude.",
    ],
    "rude": ["The tone of the reply is polite, it should be rude and informal."],
    "search": [
        "The query should contain the name of the director and not the title of the movie.",
        "The query contains the title of the movie, but it should contain the name of the director.",
        "Instead of the title of the movie, the query should contain the director's name.",
    ],
    "search, other way": [
        "The query should contain the title of the movie and not the name of the director.",
        "The query contains the name of the director, but it should contain the title of the movie.",
    ],
    "empty": [
        "If the list is empty, return zero.",
        "Return zero if the list is empty.",
        "The instruction should say to return 0 when the list is empty.",
    ],
    "not empty": ["If the list is not empty, return zero.", "Return zero when the list is not empty."],
    "longest": [
        "The instruction should tell the model to pick the longest word when several words start with the same letter.",
        "When several words start with the same letter, the model should pick the longest word.",
        "The prompt does not tell the model to pick the longest word when several words start with the same letter.",
    ],
    "shortest": [
        "When several words start with the same letter, the model should pick the shortest word.",
        "It should tell the model to pick the shortest word when several words start with the same letter.",
    ],
}

# Written after the measure was settled, and nothing was changed because of them.
FRESH = {
    "percent": [
        "Give the discount in percent, with a percent sign.",
        "The discount should be given in percent with a percent sign.",
    ],
    "no percent": ["Give the discount in percent, without a percent sign."],
    "table": [
        "The plan should list its steps as a numbered table with one tool call per row.",
        "The steps of the plan should be listed as a numbered table that has one tool call per row.",
        "It lists the steps as prose; they should be listed as a numbered table with one tool call per row.",
    ],
    "table, two calls": ["The plan should list its steps as a numbered table with two tool calls per row."],
    "french": [
        "Translate the title into French but keep the names of persons as they are.",
        "Names of persons should be kept as they are when the title is translated into French.",
    ],
    "german": ["Translate the title into German but keep the names of persons as they are."],
    "names too": ["Translate the title into French and do not keep the names of persons as they are."],
    "refund": [
        "Customers who ask for a refund within 30 days should be sent to billing, not to support.",
        "The router should send customers who ask for a refund within 30 days to billing instead of support.",
        "A refund asked for within 30 days goes to billing; the instruction sends these customers to support.",
    ],
    "refund, other way": [
        "Customers who ask for a refund within 30 days should be sent to support, not to billing.",
        "The router should send customers who ask for a refund within 30 days to support instead of billing.",
    ],
    "refund, 60 days": [
        "Customers who ask for a refund within 60 days should be sent to billing, not to support.",
    ],
    "loop": [
        "The function must not mutate its argument; it should return a sorted copy.",
        "Return a sorted copy, do not mutate the argument.",
        "It should return a sorted copy instead of mutating its argument.",
    ],
    "in place": ["The function must mutate its argument; it should not return a sorted copy."],
    "hint": [
        "The question names the year, so the search query has to contain the year.",
        "The search query has to contain the year that the question names.",
    ],
    "hint, month": ["The search query has to contain the month that the question names."],
    "brackets": [
        'Put optional parts in "[" and "]" and leave all others bare.',
        'Optional parts should be put in "[" and "]", with all others left bare.',
    ],
    "braces": ['Put optional parts in "{" and "}" and leave all others bare.'],
}
