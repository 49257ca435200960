raise RuntimeError("this plugin never loads")
