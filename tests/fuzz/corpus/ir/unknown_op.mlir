func.func @f() { "model.nothing"() : () -> () 
 return }