package arch

import "fmt"

func parseRoBERTa(raw []byte, labels int) (*architecture, error) {
	return parseRoBERTaAs("Roberta", 50265, raw, labels)
}

func parseXLMRoBERTa(raw []byte, labels int) (*architecture, error) {
	return parseRoBERTaAs("XLMRoberta", 30522, raw, labels)
}

// parseRoBERTaAs reads transformers' RobertaConfig or XLMRobertaConfig, whose fields are BERT's. Positions are counted
// from the one behind the padding token's id, so the first ones are never used.
func parseRoBERTaAs(name string, vocabulary int, raw []byte, labels int) (*architecture, error) {
	c, err := decodeBERT(raw, vocabulary, 1)
	if err != nil {
		return nil, err
	}
	if c.PadTokenID == nil {
		return nil, fmt.Errorf("pad_token_id: expected an integer, found null")
	}
	if err := checkBounds(bound{"pad_token_id", *c.PadTokenID, 0, c.VocabSize - 1}); err != nil {
		return nil, err
	}
	tokens := c.MaxPositions - *c.PadTokenID - 1
	if tokens < 1 {
		return nil, fmt.Errorf("max_position_embeddings: expected more than pad_token_id + 1 = %d, found %d",
			*c.PadTokenID+1, c.MaxPositions)
	}
	hidden := c.HiddenSize
	return &architecture{
		config: c,
		prefix: "roberta.",
		modules: append(c.modules("roberta"),
			linear("classifier.dense", nil, hidden, hidden, true),
			linear("classifier.out_proj", nil, labels, hidden, true),
			linear("classifier", nil, labels, hidden, true),
		),
		heads: []Head{
			{
				name + "ForSequenceClassification", Sequence,
				[]string{"classifier.dense", "classifier.out_proj"},
				[]string{"classifier.out_proj"},
			},
			{name + "ForTokenClassification", Token, []string{"classifier"}, []string{"classifier"}},
		},
		text: &TextInput{Vocabulary: c.VocabSize, Types: c.TypeVocabSize, MaxTokens: tokens},
		work: func(rank int) work { return c.work(tokens, rank) },
	}, nil
}
