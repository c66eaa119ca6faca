package arch

// parseDeiT reads transformers' DeiTConfig, whose fields are ViT's. The model has a second special token, for what it
// learns of a teacher.
func parseDeiT(raw []byte, labels int) (*architecture, error) {
	c, err := decodeViT(raw)
	if err != nil {
		return nil, err
	}
	teacher := []string{"cls_classifier", "distillation_classifier"}
	return &architecture{
		config: c,
		prefix: "deit.",
		modules: append(c.modules("deit", "cls_token", "distillation_token"),
			linear("classifier", nil, labels, c.HiddenSize, true),
			linear("cls_classifier", nil, labels, c.HiddenSize, true),
			linear("distillation_classifier", nil, labels, c.HiddenSize, true),
		),
		heads: []Head{
			{"DeiTForImageClassification", Sequence, []string{"classifier"}, []string{"classifier"}},
			{"DeiTForImageClassificationWithTeacher", Sequence, teacher, teacher},
		},
		image: c.image(),
		work:  c.work(2),
	}, nil
}
